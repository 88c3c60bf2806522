"""Money for a call: reserved before it starts, settled after it; and the fate of a job without money."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from run_help import Stage, answered, chain, stage, started

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import Balance, BudgetKey, BudgetRecord, of_batch, of_tenant
from understudy.models.state import JobState, Priority
from understudy.worker.budgets.reservations import Budgets, InsufficientBudget, Reservation, Shortage
from understudy.worker.job.run import JobRun
from understudy.worker.leases import Leases

ALPHA = chain("alpha/m")
BATCH = of_batch("batch_1")
PRICES = {"m": {"input": 0.0, "output": 1000.0}}
"""A token of the answer costs $0.001, and 500 are expected."""

LEASE_S = 15.0


async def balance(scene: Stage, subject: BudgetKey = BATCH) -> Balance:
    return (await scene.tools.budgets.read([subject]))[subject][0]


async def test_what_a_call_cost_is_spent_and_nothing_stays_held(redis_url: str) -> None:
    async with stage(redis_url, prices=PRICES) as scene:
        scene.known[BATCH] = BudgetRecord(1.0, 0.0, 0.0)
        settled = await scene.run(ALPHA, batch_budget=True)
        cost_usd = answered(settled)["extra_fields"]["cost_usd"]
        assert cost_usd > 0
        assert await balance(scene) == Balance(1.0, pytest.approx(cost_usd), 0.0)


async def test_a_job_without_a_budget_asks_no_balance(redis_url: str) -> None:
    async with stage(redis_url, prices=PRICES) as scene:
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED
        assert not await scene.redis.keys("understudy:balance:*")


@pytest.mark.parametrize("spent_usd", [0.6, 0.7])
async def test_a_job_of_a_batch_that_spent_its_budget_is_put_back_and_costs_no_attempt(
    redis_url: str, spent_usd: float
) -> None:
    async with stage(redis_url, prices=PRICES) as scene:
        scene.known[BATCH] = BudgetRecord(1.0, 0.0, spent_usd)
        settled = await scene.run(ALPHA, batch_budget=True)
        assert (settled.state, settled.attempts, scene.calls("alpha")) == (JobState.QUEUED, [], 0)
        same_for_all = "its budget of 1.00 USD is reached; `understudy resume batch_1` grants it again"
        assert settled.waiting is not None and settled.waiting.sentence == same_for_all
        assert (await balance(scene)).reserved_usd == 0


async def test_the_wait_for_money_that_others_hold_costs_no_attempt(redis_url: str) -> None:
    async with stage(redis_url, prices=PRICES) as scene:
        scene.known[BATCH] = BudgetRecord(1.0, 0.0, 0.0)
        assert isinstance(await scene.tools.budgets.reserve([BATCH], 0.8), Reservation)
        settled = await scene.run(ALPHA, batch_budget=True)
        assert (settled.state, settled.attempts, scene.calls("alpha")) == (JobState.QUEUED, [], 0)
        assert (
            settled.waiting is not None
            and settled.waiting.sentence == "calls in flight reserve the rest of the budget of batch:batch_1, 1.00 USD"
        )


@pytest.mark.parametrize("batch_id, state", [("", JobState.FAILED), ("batch_1", JobState.QUEUED)])
async def test_who_waits_for_the_answer_is_told_at_once_that_there_is_no_money(
    redis_url: str, batch_id: str, state: JobState
) -> None:
    async with stage(redis_url, prices=PRICES) as scene:
        scene.known[of_tenant("default", time.time())] = BudgetRecord(10.0, 0.0, 10.0)
        job = replace(started(ALPHA, tenant_budget=True, priority=Priority.INTERACTIVE), batch_id=batch_id)
        settled = await JobRun(job, ALPHA, scene.tools).run()
        assert settled.state is state
        if state is JobState.FAILED:
            assert settled.result is not None and settled.result.body is not None
            error = orjson.loads(settled.result.body)["error"]
            assert (settled.result.status_code, error["type"], error["code"]) == (
                402,
                "insufficient_quota",
                "budget_reached",
            )
            assert error["message"].startswith("tenant default has spent 10.00 of 10.00 USD this month, and the next ")


async def test_a_job_whose_tenant_spent_its_month_waits_and_says_what_all_of_its_jobs_say(redis_url: str) -> None:
    async with stage(redis_url, prices=PRICES) as scene:
        scene.known[of_tenant("default", time.time())] = BudgetRecord(10.0, 0.0, 9.9)
        settled = await scene.run(ALPHA, tenant_budget=True)
        assert settled.waiting is not None
        assert settled.waiting.sentence.startswith("tenant default has spent its 10.00 USD this month; resumes 1 ")
        assert settled.waiting.sentence.endswith(" (UTC) or with `understudy resume tenant:default`")


async def test_a_provider_that_spent_its_day_is_passed_over(redis_url: str) -> None:
    async with stage(redis_url, prices=PRICES, budget_usd_per_day=0.3) as scene:
        settled = await scene.run(chain("alpha/m", "beta/m"))
        assert answered(settled)["extra_fields"]["provider"] == "beta"
        assert scene.calls("alpha") == 0


async def test_a_job_whose_only_provider_spent_its_day_waits(redis_url: str) -> None:
    async with stage(redis_url, prices=PRICES, budget_usd_per_day=0.3) as scene:
        settled = await scene.run(ALPHA)
        assert (settled.state, settled.attempts) == (JobState.QUEUED, [])
        assert settled.waiting is not None
        assert settled.waiting.sentence.startswith(
            "provider alpha may spend 0.30 USD today, less than the next job would"
        )
        assert settled.waiting.sentence.endswith("or grant it again with `understudy resume provider:alpha`")


async def test_a_batch_that_cannot_pay_its_understudy_begins_again_at_the_lead(redis_url: str) -> None:
    async with stage(
        redis_url, {"provider": "alpha", "fail": "server"}, prices={"m": {"input": 0, "output": 1}}
    ) as scene:
        scene.known[BATCH] = BudgetRecord(0.5, 0.0, 0.0)
        settled = await scene.run(chain("alpha/m", "beta/m", patience_s=0), batch_budget=True)
        assert (settled.state, scene.calls("beta")) == (JobState.QUEUED, 0)
        assert settled.progress is not None and settled.progress["step"] == 0
        assert settled.not_before > time.time() + 2, "when the lead may be asked again"
        assert settled.waiting is not None and settled.waiting.sentence.startswith("its budget of 0.50 USD is reached")


async def test_a_call_that_fails_gives_back_what_was_held(redis_url: str) -> None:
    async with stage(redis_url, {"provider": "alpha", "fail": "server"}, prices=PRICES) as scene:
        scene.known[BATCH] = BudgetRecord(1.0, 0.0, 0.0)
        await scene.run(ALPHA, batch_budget=True)
        assert scene.calls("alpha") > 0
        assert await balance(scene) == Balance(1.0, 0.0, 0.0)


class Fleet:
    """Workers of one installation that share balances."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.known = {BATCH: BudgetRecord(1.0, 0.0, 0.0)}
        self.reads = 0

    def worker(self, name: str, now_ms: float = 0.0) -> Budgets:
        leases = Leases(self.redis, name, LEASE_S)
        leases.scripts.now_ms = now_ms
        return Budgets(Settings(), leases, self._read, time.time)

    async def _read(self, subjects: Any, _providers: Any) -> dict[BudgetKey, BudgetRecord]:
        self.reads += 1
        return {each: self.known[each] for each in subjects if each in self.known}


@pytest.fixture
async def fleet(redis_url: str) -> AsyncIterator[Fleet]:
    async with Redis.from_url(redis_url) as redis:
        yield Fleet(redis)


async def seen(by: Budgets) -> Balance:
    return (await by.read([BATCH]))[BATCH][0]


async def test_workers_never_hold_more_than_there_is(fleet: Fleet) -> None:
    held = [await fleet.worker(f"w{number}").reserve([BATCH], 0.3) for number in range(5)]
    assert [isinstance(each, Reservation) for each in held] == [True, True, True, False, False]
    assert isinstance(held[3], InsufficientBudget) and held[3].why is Shortage.RESERVED


async def test_a_refusal_by_one_budget_holds_nothing_in_the_others(fleet: Fleet) -> None:
    month = of_tenant("acme", 0.0)
    fleet.known[month] = BudgetRecord(0.2, 0.0, 0.0)
    one = fleet.worker("w1")
    refused = await one.reserve([BATCH, month], 0.3)
    assert isinstance(refused, InsufficientBudget) and (refused.subject, refused.why) == (month, Shortage.SPENT)
    assert (await seen(one)).reserved_usd == 0


async def test_a_killed_worker_leaks_nothing(fleet: Fleet) -> None:
    await fleet.worker("dead").reserve([BATCH], 0.9)
    assert isinstance(await fleet.worker("w2").reserve([BATCH], 0.3), InsufficientBudget)
    assert isinstance(await fleet.worker("w2", now_ms=LEASE_S * 1000 + 1).reserve([BATCH], 0.3), Reservation)


async def test_a_beat_renews_what_is_held_and_restores_it_after_a_wipe(fleet: Fleet) -> None:
    one = fleet.worker("w1")
    await one.reserve([BATCH], 0.9)
    one._leases.scripts.now_ms = LEASE_S * 900
    await fleet.redis.flushdb()
    await one._leases.beat()
    other = fleet.worker("w2", now_ms=LEASE_S * 1500)
    refused = await other.reserve([BATCH], 0.3)
    assert isinstance(refused, InsufficientBudget) and refused.why is Shortage.RESERVED


async def test_a_balance_that_redis_lost_is_read_from_the_ledger_once(fleet: Fleet) -> None:
    fleet.known[BATCH] = BudgetRecord(1.0, 0.5, 1.2)
    one = fleet.worker("w1")
    assert isinstance(await one.reserve([BATCH], 0.2), Reservation)
    assert isinstance(await one.reserve([BATCH], 0.2), InsufficientBudget)
    assert fleet.reads == 1


async def test_what_redis_knows_to_be_spent_is_not_forgotten_for_a_ledger_that_lags(fleet: Fleet) -> None:
    one = fleet.worker("w1")
    held = await one.reserve([BATCH], 0.5)
    assert isinstance(held, Reservation)
    await one.settle(held, 0.7)
    await one.load([BATCH])
    assert await seen(one) == Balance(1.0, 0.7, 0.0)
    fleet.known[BATCH] = BudgetRecord(1.0, 2.0, 0.8)
    await one.load([BATCH])
    assert await seen(one) == Balance(3.0, 0.8, 0.0)


async def test_a_budget_that_was_taken_away_covers_nothing(fleet: Fleet) -> None:
    fleet.known[BATCH] = BudgetRecord(None, 0.0, 5.0)
    assert isinstance(await fleet.worker("w1").reserve([BATCH], 9.0), Reservation)


async def test_the_last_of_a_budget_can_be_spent_whatever_its_sums_are(fleet: Fleet) -> None:
    fleet.known[BATCH] = BudgetRecord(0.3, 0.0, 0.0)
    one = fleet.worker("w1")
    for _ in range(3):
        held = await one.reserve([BATCH], 0.1)
        assert isinstance(held, Reservation)
        await one.settle(held, 0.1)
    assert isinstance(await one.reserve([BATCH], 0.1), InsufficientBudget)


async def test_a_budget_pays_for_no_model_without_a_price(redis_url: str) -> None:
    """Even if it was accepted before the budget existed."""
    async with stage(redis_url, prices=PRICES) as scene:
        unknown = chain("alpha/unheard-of")
        assert (await scene.run(unknown)).state is JobState.SUCCEEDED
        scene.known[BATCH] = BudgetRecord(1_000.0, 0.0, 0.0)
        settled = await scene.run(unknown, batch_budget=True)
        assert (settled.state, settled.attempts, scene.calls("alpha")) == (JobState.QUEUED, [], 1)
        assert settled.waiting is not None
        assert "no price of its model is known; the operator writes it" in settled.waiting.sentence
