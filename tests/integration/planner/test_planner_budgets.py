"""Budgets in the planner: staging while money lasts, pausing when it is spent, continuing after a grant."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ledger_help import new_jobs, new_worker, put_back, succeeded
from run_help import Stage, budget_sync_of, chain, planner_of, stage, without_slow_start

from understudy.models.costs.budgets import Balance, BudgetKey, of_batch, of_tenant
from understudy.models.ids import new_id
from understudy.models.jobs.execution import Settled
from understudy.models.jobs.submission import NewBatch
from understudy.models.queue.keys import QUEUES
from understudy.models.queue.tickets import queue_key, staged_ids
from understudy.models.routing.chain import Chain
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.worker.budgets.reservations import Budgets, InsufficientBudget, Reservation
from understudy.worker.leases import Leases
from understudy.worker.planner.batch_waits import MOVED_AFTER_S, TOLD_AFTER_S
from understudy.worker.planner.budget_sync import STANDSTILL_S
from understudy.worker.planner.planner import CLAIMED_BY_NOW_S, Planner

ALPHA = chain("alpha/m")
PRICES = {"m": {"input": 0.0, "output": 20.0}}  # the expected cost of a job is one cent
HOUR_S = 3600.0


@dataclass
class Office:
    """A planner, a ledger and a worker's balances, on a clock that the test sets."""

    scene: Stage
    store: Store
    planner: Planner
    budgets: Budgets
    worker: str
    ahead_s: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    async def batch(self, of: Chain, count: int, max_output_tokens: int = 0, **fields: Any) -> str:
        batch_id, expires_at = new_id("batch"), time.time() + HOUR_S
        await self.store.intake.create_batch(NewBatch(batch_id, expires_at=expires_at, **fields))
        jobs = await new_jobs(self.store, count, of)
        words = {"tenant": fields.get("tenant", "default"), "max_output_tokens": max_output_tokens}
        await self.store.intake.add_jobs(batch_id, [replace(job, **words) for job in jobs])
        await self.store.intake.open_batch(batch_id, count)
        return batch_id

    async def pass_later(self, by_s: float = 0.0) -> int:
        self.ahead_s += by_s
        return await self.planner.pass_once()

    async def tickets(self) -> list[str]:
        return [job_id for ids in (await staged_ids(self.scene.redis)).values() for job_id in ids]

    async def take_all(self) -> None:
        """As workers do: the tickets leave the queues."""
        await self.scene.redis.delete(*map(queue_key, QUEUES))

    async def work_off(self, cost_usd: float) -> int:
        """Staged jobs run and cost this much each, as far as there is money. Returns how many calls were made."""
        tickets, calls = await self.tickets(), 0
        await self.take_all()
        for job in await self.store.claims.start(self.worker, tickets):
            run = replace(self.scene.tools, budgets=self.budgets)
            settled = await _run(job, await self.store.get_chain(job.chain_id), run, cost_usd)
            calls += len(settled.attempts)
            await self.store.claims.settle(self.worker, [settled])
        return calls

    async def paused(self, batch_id: str) -> str | None:
        view = await self.store.batches.view(batch_id)
        assert view is not None
        return view.paused


async def _run(job: Any, of: Chain, tools: Any, cost_usd: float) -> Settled:
    subjects = tools.budgets.covering(job, of.steps[0].provider)
    usd = tools.costs.of_job(of, of.steps[0], job.batch_id, job.tokens, 0)
    held = await tools.budgets.reserve(subjects, usd)
    if isinstance(held, InsufficientBudget):
        return put_back(job, time.time() + 2.0, held.reason)
    await tools.budgets.settle(held, cost_usd)
    done = replace(succeeded(job), tenant=job.tenant)
    provider = of.steps[0].provider
    done.attempts = [replace(each, cost_usd=cost_usd, provider=provider) for each in done.attempts]
    return done


@asynccontextmanager
async def office(redis_url: str, store: Store, **alpha: Any) -> AsyncIterator[Office]:
    async with stage(redis_url, **{"prices": PRICES, **alpha}) as scene:
        await without_slow_start(scene.redis, "alpha", "beta")
        balances = budget_sync_of(scene, store)
        budgets = Budgets(scene.settings, Leases(scene.redis, "w1"), store.budgets.read, time.time)
        here = Office(scene, store, None, budgets, await new_worker(store))  # type: ignore[arg-type]
        balances._monotonic = here.monotonic
        here.planner = planner_of(scene, store, balances, monotonic=here.monotonic)
        yield here


LATER_S = CLAIMED_BY_NOW_S + 0.1


async def test_a_batch_is_staged_while_its_money_lasts_then_paused_with_the_reason(
    redis_url: str, store: Store
) -> None:
    async with office(redis_url, store) as here:
        batch_id = await here.batch(ALPHA, 50, budget_usd=0.05)
        assert await here.pass_later() == 5
        assert await here.work_off(0.012) <= 5
        for _ in range(4):
            await here.pass_later(LATER_S)
            await here.work_off(0.012)
        said = "its budget of 0.05 USD is reached: 0.048 is spent, and the next job would cost about 0.01"
        assert await here.paused(batch_id) == f"{said}; `understudy resume {batch_id}` grants it again"
        view = await here.store.batches.view(batch_id)
        assert view is not None and view.counts[JobState.SUCCEEDED] == 4
        assert await here.store.budgets.grant_batch(batch_id) == pytest.approx(0.10)
        await here.store.batch_lifecycle.resume(batch_id)
        assert await here.pass_later(LATER_S) == 5, "a grant is known at once"


async def test_calls_that_cost_less_than_expected_leave_money_for_others(redis_url: str, store: Store) -> None:
    async with office(redis_url, store) as here:
        await here.batch(ALPHA, 50, budget_usd=0.02)
        calls = 0
        for _ in range(30):
            await here.pass_later(LATER_S)
            calls += await here.work_off(0.002)
        assert calls == 6, "0.012 are spent, 0.008 are left, and a job is expected to cost 0.01"


async def test_a_batch_that_a_more_expensive_step_ruins_is_paused_too(redis_url: str, store: Store) -> None:
    """The planner sees the primary's price; the worker, which fell back, was refused."""
    async with office(redis_url, store) as here:
        batch_id = await here.batch(ALPHA, 5, budget_usd=0.05)
        await here.pass_later()
        refused = await here.budgets.reserve([of_batch(batch_id)], 0.30)
        assert isinstance(refused, InsufficientBudget)
        await here.take_all()
        await here.pass_later(1.0)
        assert await here.paused(batch_id) is None, "others of it may go on"
        await here.take_all()
        await here.pass_later(STANDSTILL_S)
        paused = await here.paused(batch_id)
        assert paused is not None and "the next job would cost about 0.30" in paused


async def test_a_batch_is_not_paused_while_its_calls_are_under_way(redis_url: str, store: Store) -> None:
    async with office(redis_url, store) as here:
        batch_id = await here.batch(ALPHA, 20, budget_usd=0.02)
        await here.pass_later()
        tickets = await here.tickets()
        await here.take_all()
        started = await here.store.claims.start(here.worker, tickets)
        held = [await here.budgets.reserve([of_batch(batch_id)], 0.01) for _ in started]
        assert len(held) == 2 and all(isinstance(each, Reservation) for each in held)
        for _ in range(3):
            assert await here.pass_later(LATER_S) == 0
        assert await here.paused(batch_id) is None


async def test_a_tenant_whose_month_is_spent_has_to_wait_and_says_so(redis_url: str, store: Store) -> None:
    async with office(redis_url, store) as here:
        await here.store.tenants.set_limits(TenantLimits("acme", usd_per_month=0.02), actor="a test")
        batch_id = await here.batch(ALPHA, 20, tenant="acme")
        others = await here.batch(ALPHA, 3)
        assert await here.pass_later() == 5
        await here.work_off(0.01)
        for _ in range(3):
            assert await here.pass_later(LATER_S) == 0
        view = await here.store.batches.view(batch_id)
        assert view is not None and view.paused is None and view.waiting is not None
        said = r"tenant acme has spent 0.02 of 0.02 USD this month, and the next job would cost about \S+; resumes 1 "
        assert re.match(said, view.waiting.reason)
        done = await here.store.batches.view(others)
        assert done is not None and done.counts[JobState.SUCCEEDED] == 3
        await here.store.budgets.grant(of_tenant("acme", time.time()), 0.03)
        assert await here.pass_later(LATER_S) == 3


async def test_a_batch_that_its_tenants_budget_stops_is_announced_and_so_is_the_grant(
    redis_url: str, store: Store
) -> None:
    async with office(redis_url, store) as here:
        await here.store.tenants.set_limits(TenantLimits("acme", usd_per_month=0.02), actor="a test")
        batch_id = await here.batch(ALPHA, 20, tenant="acme", callback_url="https://hooks.example.com")
        assert await here.pass_later() == 2
        await here.planner.tell_blocked()
        await here.work_off(0.01)
        for seconds in (LATER_S, TOLD_AFTER_S / 2):
            assert await here.pass_later(seconds) == 0
            await here.planner.tell_blocked()
            assert await here.store.batch_lifecycle.blocked() == {}, "it may be over in a moment"
        for _ in range(2):
            assert await here.pass_later(TOLD_AFTER_S) == 0
            await here.planner.tell_blocked()
        (reason,) = (await here.store.batch_lifecycle.blocked()).values()
        assert reason.startswith("tenant acme has spent 0.02 of 0.02 USD this month")
        await here.store.budgets.grant(of_tenant("acme", time.time()), 0.03)
        assert await here.pass_later(LATER_S) == 3
        await here.planner.tell_blocked()
        assert set(await here.store.batch_lifecycle.blocked()) == {batch_id}, "it may wait for more in a moment"
        await here.pass_later(MOVED_AFTER_S)
        await here.planner.tell_blocked()
        assert await here.store.batch_lifecycle.blocked() == {}
        told = sorted((row["id"], row["event"]) for row in await here.store.webhooks.deliveries("acme"))
        assert [event for _, event in told] == ["batch.paused", "batch.resumed"]


async def test_a_provider_that_spent_its_day_gets_no_more_jobs_until_it_is_granted_more(
    redis_url: str, store: Store
) -> None:
    async with office(redis_url, store, budget_usd_per_day=0.03) as here:
        both = await here.batch(chain("alpha/m", "beta/m"), 10)
        only = await here.batch(ALPHA, 10)
        await here.pass_later()
        await here.work_off(0.01)
        await here.pass_later(LATER_S)
        tickets = await here.tickets()
        assert {here.planner._tickets[job_id].lane.batch_id for job_id in tickets} == {both}
        await here.take_all()
        await here.pass_later(LATER_S)
        view = await here.store.batches.view(only)
        assert view is not None and view.waiting is not None
        said = r"provider alpha has spent 0.03 of 0.03 USD today, and the next job would cost about \S+; resumes "
        assert re.match(said, view.waiting.reason)
        [today] = here.budgets.of_providers()
        await here.store.budgets.grant(today, 0.02)
        await here.pass_later(LATER_S)
        assert here.planner._tickets


async def test_a_later_cheap_batch_gets_what_an_expensive_one_left_of_a_providers_day(
    redis_url: str, store: Store
) -> None:
    async with office(redis_url, store, budget_usd_per_day=0.005) as here:
        await here.batch(ALPHA, 3)
        for _ in range(3):
            assert await here.pass_later(LATER_S) == 0
        cheap = await here.batch(ALPHA, 3, max_output_tokens=10)
        await here.pass_later(LATER_S)
        await here.pass_later(LATER_S)
        assert {here.planner._tickets[job_id].lane.batch_id for job_id in await here.tickets()} == {cheap}


async def test_a_wiped_redis_knows_the_budgets_again_before_anything_is_staged(redis_url: str, store: Store) -> None:
    async with office(redis_url, store) as here:
        batch_id = await here.batch(ALPHA, 20, budget_usd=0.05)
        await here.pass_later()
        await here.work_off(0.01)
        await here.scene.redis.flushdb()
        assert await here.pass_later(LATER_S) == 0
        subject: BudgetKey = of_batch(batch_id)
        assert (await here.budgets.read([subject]))[subject][0] == Balance(0.05, pytest.approx(0.05), 0.0)
