"""Budgets with real worker processes: what is spent, what is reserved when a worker dies, and how work continues."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from stage_hands import Mock, Process, Scene, kill, queue_and_servers

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

ANSWERS = "[answers]\noutput_tokens = 100\nlatency_s = {latency_s}\n"
PRICES = """
[providers.alpha.prices.m]
input = 0
output = 20

[providers.beta.prices.m]
input = 0
output = 200

[providers.gamma]
kind = "openai"
base_url = "{mock}/gamma/v1"
prices = {{ m = {{ input = 0, output = 20 }} }}
budget_usd_per_day = 0.01

[chains.cheap-first]
steps = ["alpha/m", "beta/m"]
patience_s = 0

[chains.a-day]
steps = ["gamma/m", "alpha/m"]
"""
CALL_USD = 0.002
"""An answer has 100 tokens at $20 a million."""


def write_lines(folder: Path, count: int, model: str = "alpha/m") -> Path:
    path = folder / "in.jsonl"
    lines = [
        {"custom_id": f"line-{n}", "prompt": f"prompt {n}", "model": model, "max_tokens": 100} for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def understudy(scene: Scene, *words: str | Path) -> str:
    done = scene.type(*words)
    assert done.returncode == 0, done.said
    return done.said


def submit(scene: Scene, source: Path, *options: str) -> str:
    said = understudy(scene, "submit", source, *options)
    return next(line for line in said.splitlines() if line.startswith("batch_"))


def paused(scene: Scene, batch: str) -> str | None:
    reason: str | None = scene.ledger.rows("SELECT paused FROM batch WHERE id = :id", id=batch)[0].paused
    return reason


def waits_for(scene: Scene, batch: str) -> str:
    return str(scene.ledger.rows("SELECT waiting FROM batch WHERE id = :id", id=batch)[0].waiting)


def spent(scene: Scene) -> float:
    return float(scene.ledger.rows("SELECT coalesce(sum(cost_usd), 0) AS usd FROM attempt")[0].usd)


def until_paused(scene: Scene, workers: Process, batch: str) -> str:
    return str(workers.until(lambda: paused(scene, batch), "the batch is paused"))


@pytest.mark.slow
@queue_and_servers
def test_a_budget_of_a_cent_lets_five_calls_start_and_resume_five_more(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(ANSWERS.format(latency_s=0.05))
    scene.configure(mock, more=PRICES.format(mock=mock.url))
    batch = submit(scene, write_lines(scene.folder, 2_000), "--budget-usd", "0.01")
    workers = scene.worker("--workers", "2")
    said = "its budget of 0.01 USD is reached: 0.01 is spent, and the next job would cost about 0.002"
    assert until_paused(scene, workers, batch) == f"{said}; `understudy resume {batch}` grants it again"
    assert (mock.answered(), spent(scene)) == (5, pytest.approx(0.01))
    assert "is resumed with a total budget of 0.02 USD" in understudy(scene, "resume", batch)
    workers.until(lambda: mock.answered() == 10, "five more calls are made")
    until_paused(scene, workers, batch)
    status = json.loads(understudy(scene, "status", batch, "--json"))["understudy"]
    assert (status["budget_usd"], status["reserved_usd"], status["cost_usd"]) == (0.02, 0, pytest.approx(0.02))
    understudy(scene, "resume", batch, "--budget-usd", "0.024")
    workers.until(lambda: mock.answered() == 12, "two more calls are made")
    until_paused(scene, workers, batch)
    assert mock.answered() == 12


@pytest.mark.parametrize("scene", ["queue"], indirect=True)
@pytest.mark.slow
def test_a_killed_worker_leaks_no_money_and_the_budget_holds(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(ANSWERS.format(latency_s=1.5))
    scene.configure(mock, lease_s=2.0, more=PRICES.format(mock=mock.url))
    batch = submit(scene, write_lines(scene.folder, 100), "--budget-usd", "0.02")
    workers = scene.worker("--workers", "2")
    workers.until(lambda: mock.in_flight() >= 2, "calls are in flight")
    for victim in workers.workers():
        kill(victim)
    until_paused(scene, workers, batch)
    assert scene.ledger.ended() == 10, "all of it could be spent"
    assert spent(scene) == pytest.approx(0.02)
    with Redis.from_url(scene.servers["REDIS_URL"]) as redis:
        balance = redis.hgetall(f"understudy:balance:batch:{batch}")
    assert float(balance[b"spent"]) == pytest.approx(0.02)


@pytest.mark.parametrize("scene", ["queue"], indirect=True)
@pytest.mark.slow
def test_a_wiped_redis_forgets_no_budget(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(ANSWERS.format(latency_s=0.3))
    scene.configure(mock, concurrency=4, more=PRICES.format(mock=mock.url))
    batch = submit(scene, write_lines(scene.folder, 500), "--budget-usd", "0.1")
    workers = scene.worker("--workers", "2")
    with Redis.from_url(scene.servers["REDIS_URL"]) as redis:
        for wanted in (10, 25, 40):
            workers.until(lambda wanted=wanted: mock.answered() >= wanted, f"{wanted} calls are answered")
            redis.flushdb()
        until_paused(scene, workers, batch)
    assert 0.1 - CALL_USD < spent(scene) <= 0.1 + 8 * CALL_USD + 1e-9, "no more than eight calls were in flight"


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["queue"], indirect=True)
def test_a_tenant_that_spent_its_month_waits_and_is_granted_more(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(ANSWERS.format(latency_s=0.05))
    scene.configure(mock, more=PRICES.format(mock=mock.url))
    understudy(scene, "tenants", "set", "default", "--usd-per-month", "0.01")
    batch = submit(scene, write_lines(scene.folder, 100))
    workers = scene.worker("--workers", "2")
    workers.until(
        lambda: "default has spent 0.01 of 0.01 USD this month" in waits_for(scene, batch), "the tenant waits"
    )
    assert (mock.answered(), paused(scene, batch)) == (5, None)
    said = understudy(scene, "resume", "tenant:default")
    assert "granted tenant default another 0.01 USD for this month: the budget is now 0.02 USD, of which 0.01" in said
    workers.until(lambda: mock.answered() == 10, "five more calls are made")
    workers.until(lambda: "has spent 0.02 of 0.02 USD" in waits_for(scene, batch), "the tenant waits again")
    assert mock.answered() == 10


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["queue"], indirect=True)
def test_a_provider_that_spent_its_day_leaves_the_rest_to_the_next(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(ANSWERS.format(latency_s=0.05))
    scene.configure(mock, more=PRICES.format(mock=mock.url))
    batch = submit(scene, write_lines(scene.folder, 60, "a-day"))
    workers = scene.worker("--workers", "2")
    workers.until(lambda: scene.ledger.ended() == 60, "all jobs end")
    answered = {
        row.provider: row.many for row in scene.ledger.rows("SELECT provider, count(*) many FROM result GROUP BY 1")
    }
    assert answered == {"gamma": 5, "alpha": 55}
    assert paused(scene, batch) is None
    only = submit(scene, write_lines(scene.folder, 3, "gamma/m"))
    workers.until(lambda: "gamma has spent 0.01 of 0.01 USD today" in waits_for(scene, only), "it waits")
    assert "provider gamma has spent 0.01 of 0.01 USD today, and the next " in understudy(scene, "status", only)
    assert "granted provider gamma another 0.01 USD for today" in understudy(scene, "resume", "provider:gamma")
    workers.until(lambda: scene.ledger.ended() == 63, "it goes on")


@pytest.mark.parametrize("scene", ["queue"], indirect=True)
def test_a_cheap_primary_that_fails_does_not_ruin_a_batch_through_its_expensive_understudy(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(ANSWERS.format(latency_s=0.05) + '[[rules]]\nprovider = "alpha"\nfail = "bad_gateway"\n')
    scene.configure(mock, more=PRICES.format(mock=mock.url))
    batch = submit(scene, write_lines(scene.folder, 200, "cheap-first"), "--budget-usd", "0.05")
    workers = scene.worker("--workers", "2")
    reason = until_paused(scene, workers, batch)
    assert reason.startswith("its budget of 0.05 USD is reached: 0.04 is spent, and the next job would cost about 0.02")
    assert (mock.answered(), spent(scene)) == (2, pytest.approx(0.04))
