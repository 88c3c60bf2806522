"""Budgets in the ledger: what was spent, what was granted, and when a batch is paused."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from ledger_help import new_worker, open_batch, put_back, run_all, singles, succeeded
from sqlalchemy import update

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import BudgetKey, BudgetRecord, of_batch, of_provider, of_tenant
from understudy.models.store import Store
from understudy.models.store.sql import provider_tally
from understudy.models.tenants import TenantLimits

SETTINGS = Settings.model_validate({"providers": {"lead": {"budget_usd_per_day": 2, "budget_usd_per_month": 5}}})


async def test_a_batch_has_spent_what_its_calls_cost(store: Store) -> None:
    batch_id, ids = await open_batch(store, 3, budget_usd=1.0)
    await run_all(store, await new_worker(store), ids[:2])
    assert await store.budgets.open_keys(await store.now()) == [of_batch(batch_id)]
    assert await store.budgets.read([of_batch(batch_id)]) == {of_batch(batch_id): BudgetRecord(1.0, 0.0, 0.5)}


async def test_a_batch_without_a_budget_has_none(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    assert await store.budgets.open_keys(await store.now()) == []
    assert (await store.budgets.read([of_batch(batch_id)]))[of_batch(batch_id)].balance is None


async def test_a_tenant_has_spent_what_its_calls_cost_this_month(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("acme", usd_per_month=3.0), actor="a test")
    ids = await singles(store, 2, tenant="acme")
    worker = await new_worker(store)
    now = await store.now()
    started = [replace(succeeded(job), tenant="acme") for job in await store.claims.start(worker, ids[:1])]
    await store.claims.settle(worker, started)
    this, last = of_tenant("acme", now), BudgetKey("tenant", "acme", "2020-02")
    assert await store.budgets.open_keys(now) == [this]
    known = await store.budgets.read([this, last])
    assert known == {this: BudgetRecord(3.0, 0.0, 0.25), last: BudgetRecord(3.0, 0.0, 0.0)}


async def test_a_provider_has_spent_what_its_calls_cost_this_day_and_this_month(store: Store) -> None:
    _, ids = await open_batch(store, 2)
    await run_all(store, await new_worker(store), ids)
    known = await store.budgets.read([], of_provider(SETTINGS, "lead", await store.now()))
    assert sorted(known.values(), key=lambda each: each.base_usd or 0) == [
        BudgetRecord(2.0, 0.0, 0.5),
        BudgetRecord(5.0, 0.0, 0.5),
    ]


async def test_a_claimed_job_says_whether_a_budget_covers_it(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("default", usd_per_month=3.0), actor="a test")
    _, with_budget = await open_batch(store, 1, budget_usd=1.0)
    [job] = await store.claims.start(await new_worker(store), with_budget)
    assert (job.batch_budget, job.tenant_budget) == (True, True)
    await store.tenants.set_limits(TenantLimits("default"), actor="a test")
    _, without = await open_batch(store, 1)
    [job] = await store.claims.start(await new_worker(store), without)
    assert (job.batch_budget, job.tenant_budget) == (False, False)


async def test_a_batch_is_paused_when_none_of_its_jobs_runs_and_its_budget_is_unchanged(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2, budget_usd=1.0)
    worker = await new_worker(store)
    [job] = await store.claims.start(worker, ids[:1])
    assert not await store.budgets.pause_spent(batch_id, 1.0, "its budget of 1.00 USD is reached")
    await store.claims.settle(worker, [put_back(job)])
    assert not await store.budgets.pause_spent(batch_id, 0.5, "its budget of 0.50 USD is reached"), (
        "it was granted more"
    )
    assert await store.budgets.pause_spent(batch_id, 1.0, "its budget of 1.00 USD is reached")
    assert not await store.budgets.pause_spent(batch_id, 1.0, "its budget of 1.00 USD is reached"), "it is held already"
    view = await store.batches.view(batch_id)
    assert view is not None and view.paused == "its budget of 1.00 USD is reached"
    assert await store.budgets.open_keys(await store.now()) == []


async def test_resuming_a_batch_that_spent_its_budget_grants_the_first_amount_again(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, budget_usd=1.5)
    for total in (3.0, 4.5):
        assert await store.budgets.pause_spent(batch_id, total - 1.5, "its budget of 1.50 USD is reached")
        assert await store.budgets.grant_batch(batch_id) == total
        assert await store.batch_lifecycle.resume(batch_id)
        view = await store.batches.view(batch_id)
        assert view is not None and view.budget_usd == total
    assert await store.budgets.grant_batch(batch_id, 9.0) == 9.0
    assert (await store.budgets.read([of_batch(batch_id)]))[of_batch(batch_id)] == BudgetRecord(9.0, 0.0, 0.0)


async def test_two_who_resume_a_batch_at_once_grant_its_budget_once(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, budget_usd=1.5)
    assert await store.budgets.pause_spent(batch_id, 1.5, "its budget of 1.50 USD is reached")
    granted = await asyncio.gather(store.budgets.grant_batch(batch_id), store.budgets.grant_batch(batch_id))
    assert sorted(granted, key=str) == [3.0, None]


async def test_what_was_granted_to_a_batch_goes_with_it(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1, budget_usd=1.5)
    await store.budgets.grant(of_batch(batch_id), 2.0)
    await store.budgets.grant(of_batch("batch_other"), 2.0)
    await run_all(store, await new_worker(store), ids)
    await store.batch_lifecycle.close_finished()
    await store.retention.discard_batch(batch_id)
    known = await store.budgets.read([of_batch(batch_id), of_batch("batch_other")])
    assert [known[of_batch(name)].granted_usd for name in (batch_id, "batch_other")] == [0.0, 2.0]


async def test_a_batch_that_its_owner_held_is_granted_nothing(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, budget_usd=1.5)
    await store.batch_lifecycle.pause(batch_id, "paused by hand")
    assert await store.budgets.grant_batch(batch_id) is None
    view = await store.batches.view(batch_id)
    assert view is not None and view.budget_usd == 1.5


@pytest.mark.parametrize("name", ["tenant", "provider"])
async def test_a_grant_holds_for_its_period_and_adds_up(store: Store, name: str) -> None:
    at = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
    month = of_tenant("acme", at) if name == "tenant" else max(of_provider(SETTINGS, "lead", at))
    await store.budgets.grant(month, 2.0)
    await store.budgets.grant(month, 0.5)
    other = replace(month, period="2026-12")
    known = await store.budgets.read([month, other])
    assert (known[month].granted_usd, known[other].granted_usd) == (2.5, 0.0)


async def test_admission_knows_what_a_tenant_was_granted(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("acme", usd_per_month=3.0), actor="a test")
    now = await store.now()
    await store.budgets.grant(of_tenant("acme", now), 2.0)
    assert (await store.tenants.use("acme", now)).usd_granted == 2.0


async def test_sums_of_providers_are_pruned_when_no_budget_asks_for_them(store: Store) -> None:
    _, ids = await open_batch(store, 1)
    await run_all(store, await new_worker(store), ids)
    now = await store.now()
    assert (await store.retention.prunable(now)).tallies == 0
    known = await store.budgets.read([], of_provider(SETTINGS, "lead", now))
    assert {each.spent_usd for each in known.values()} == {0.25}
    async with store._db.write() as connection:
        await connection.execute(update(provider_tally).values(day=provider_tally.c.day - 31))
    assert (await store.retention.prunable(now)).tallies == await store.retention.prune_use(now) == 1
