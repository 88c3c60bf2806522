"""Priorities and turns between real processes: urgent work starts at once, small work is soon done."""

import json
import time
from collections.abc import Callable

import httpx
import pytest
from stage_hands import Mock, Scene, queue_and_servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]  # tests on shared servers run one at a time

SLOW_AND_QUICK = """
[[rules]]
provider = "alpha"
first = 10  # the batch's canary
latency_s = 0.05

[[rules]]
provider = "alpha"
latency_s = 30
"""
NO_SLOW_START = "\n[[providers.alpha.limits]]\nrequests_per_minute = 100000\n"
FIFTY_A_SECOND = "\n[[providers.alpha.limits]]\nrequests_per_minute = 3000\n"
FIVE_A_SECOND = "\n[[providers.alpha.limits]]\nrequests_per_minute = 300\n"


STARTED = "SELECT started_at FROM job WHERE tenant = :tenant AND started_at > 0 ORDER BY started_at"


def state_of(scene: Scene, batch_id: str) -> str:
    (batch,) = scene.ledger.rows("SELECT state FROM batch WHERE id = :id", id=batch_id)
    return str(batch.state)


@queue_and_servers
def test_a_single_job_starts_within_a_second_while_a_batch_holds_all_its_slots(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(SLOW_AND_QUICK)
    scene.configure(mock, concurrency=40, urgent_slots=None, more=NO_SLOW_START)
    _, url = scene.serve()
    scene.submit(scene.write_prompts(2_000))
    until(lambda: mock.in_flight() == 38, "the batch has all the slots that bulk may have")
    for number in range(3):
        body = {"model": "beta/m", "messages": [{"role": "user", "content": f"How many legs has spider {number}?"}]}
        answered = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        accepted = httpx.post(f"{url}/v1/jobs", json=body, timeout=30)
        assert (answered.status_code, accepted.status_code) == (200, 202)
    singles = "SELECT started_at - created_at AS waited_s FROM job WHERE batch_id = '' AND state = 'succeeded'"
    waited = until(lambda: len(rows := scene.ledger.rows(singles)) == 6 and rows, "the single jobs are done")
    assert max(float(row.waited_s) for row in waited) < 1.0
    assert mock.in_flight() == 38, "the batch still has its slots"


@queue_and_servers
def test_a_small_batch_is_done_in_about_its_own_time_while_a_big_one_runs(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers("[answers]\nlatency_s = 0.1\n"), more=FIVE_A_SECOND)
    scene.worker()

    def seconds_for(label: str) -> float:
        batch = scene.submit(scene.write_prompts(20, name=f"{label}.jsonl", label=label))
        began = time.monotonic()
        until(lambda: state_of(scene, batch) == "completed", f"{label} is done")
        return time.monotonic() - began

    seconds_for("warm")
    alone_s = seconds_for("alone")
    big = scene.submit(scene.write_prompts(2_000, name="big.jsonl", label="big"))
    until(lambda: scene.ledger.states()["succeeded"] >= 50, "the big batch is under way")
    beside_s = seconds_for("beside")
    assert state_of(scene, big) == "in_progress"
    assert beside_s < 3 * max(alone_s, 20 / 5), "its own time: at the limit's pace, without the burst of an idle one"


def key_of(scene: Scene, tenant: str) -> dict[str, str]:
    made = scene.type("keys", "create", "--name", tenant, "--tenant", tenant, "--scope", "submit", "--json")
    return {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}


def submitted(http: httpx.Client, key: dict[str, str], count: int, priority: str) -> None:
    for start in range(0, count, 1_000):
        asked = [
            {
                "model": "alpha/m",
                "priority": priority,
                "messages": [{"role": "user", "content": f"Is {start + more} odd?"}],
            }
            for more in range(min(count - start, 1_000))
        ]
        assert http.post("/v1/jobs:batch", json={"jobs": asked}, headers=key).is_success


@queue_and_servers
@pytest.mark.parametrize("more", ["", FIFTY_A_SECOND], ids=["few slots", "a provider at its limit"])
def test_a_tenant_that_calls_all_its_jobs_interactive_leaves_another_its_share(
    scene: Scene, providers: Callable[[str], Mock], more: str
) -> None:
    scene.configure(
        providers("[answers]\nlatency_s = 0.2\n"), concurrency=50 if more else 10, more=more or NO_SLOW_START
    )
    greedy, modest, seldom = (key_of(scene, tenant) for tenant in ("greedy", "modest", "seldom"))
    _, url = scene.serve()
    with httpx.Client(base_url=url, timeout=60) as http:
        submitted(http, greedy, 10_000, "interactive")
        until(lambda: len(scene.ledger.rows(STARTED, tenant="greedy")) >= 300, "it has all for itself")
        submitted(http, modest, 400, "normal")
        until(lambda: len(scene.ledger.rows(STARTED, tenant="modest")) >= 50, "the other has come in")
        submitted(http, seldom, 1, "interactive")
        until(lambda: len(scene.ledger.rows(STARTED, tenant="modest")) >= 350, "it has its share")
    modest_at, greedy_at = (
        [float(row.started_at) for row in scene.ledger.rows(STARTED, tenant=tenant)] for tenant in ("modest", "greedy")
    )
    meanwhile = sum(modest_at[50] <= at <= modest_at[349] for at in greedy_at)
    assert meanwhile < 1.5 * 300, "half of what there was, or a little less"
    waited = "SELECT started_at - created_at AS waited_s FROM job WHERE tenant = 'seldom'"
    (lone,) = scene.ledger.rows(waited)
    assert lone.waited_s < 2.0
