"""Machines disagree about the time. What the fleet shares uses the ledger's clock, whatever their own clocks say."""

import time
from pathlib import Path

import pytest
import redis.asyncio
from ledger_help import new_worker, open_batch, run_all
from sqlalchemy import select

from understudy.models.config.settings import Settings
from understudy.models.failure import Scope
from understudy.models.store import Store, open_store
from understudy.models.store.sql import tally
from understudy.worker.limits.grants import Candidate, Deployment, Refusal
from understudy.worker.limits.limiter import Limiter
from understudy.worker.resources import open_toolbox

HOUR_S = 3600.0
WHERE = Candidate(Deployment("alpha", "m", "main", "alpha:main"))


@pytest.mark.parametrize("apart_s", [-HOUR_S, HOUR_S])
async def test_the_limiters_times_are_given_by_the_ledgers_clock(
    connection: redis.asyncio.Redis, limiter: Limiter, apart_s: float
) -> None:
    def ledger_clock() -> float:
        return time.time() + apart_s

    await limiter.compare_clocks(ledger_clock)
    until = await limiter.cool(WHERE.deployment, Scope.MODEL, 30.0, "rate_limit")
    assert abs(until - ledger_clock() - 30.0) < 5.0
    refused = await limiter.reserve([WHERE], 10)
    assert isinstance(refused, Refusal) and refused.since is not None
    assert abs(refused.until - ledger_clock() - 30.0) < 5.0
    assert abs(refused.since - ledger_clock()) < 5.0
    (outlook,) = await limiter.outlook([WHERE], 1.0)
    assert abs(outlook.first_at - ledger_clock() - 30.0) < 5.0


async def test_clocks_that_agree_within_a_second_are_one(connection: redis.asyncio.Redis, limiter: Limiter) -> None:
    until = await limiter.cool(WHERE.deployment, Scope.MODEL, 30.0, "rate_limit")
    await limiter.compare_clocks(lambda: time.time() + 0.5)
    refused = await limiter.reserve([WHERE], 10)
    assert isinstance(refused, Refusal)
    assert refused.until == until


@pytest.mark.servers
@pytest.mark.parametrize("wrong_by_s", [-HOUR_S, HOUR_S])
async def test_a_worker_goes_by_the_ledgers_clock_whatever_its_machine_says(
    redis_url: str, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by_s: float
) -> None:
    right = time.time
    async with open_store(postgresql_url, tmp_path, migrate=True):
        pass
    settings = Settings(database_url=postgresql_url, data=tmp_path)
    monkeypatch.setattr(time, "time", lambda: right() + wrong_by_s)
    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        async with open_toolbox(settings, connection, "w1", 1) as box:
            assert abs(box.tools.clock() - right()) < 5.0
            monkeypatch.setattr(time, "time", lambda: right() + 2 * wrong_by_s)
            assert abs(box.tools.clock() - right()) < 5.0, "set while it runs"
            await box.compare_clocks()
            assert abs(box.tools.clock() - right()) < 5.0
            until = await box.tools.limiter.cool(WHERE.deployment, Scope.MODEL, 30.0, "rate_limit")
            assert abs(until - right() - 30.0) < 5.0


@pytest.mark.servers
async def test_calls_are_counted_at_the_ledgers_time(postgresql_url: str, tmp_path: Path) -> None:
    """Daily budgets and the rates that people see depend on it."""
    async with open_store(postgresql_url, tmp_path, clock=lambda: time.time() + HOUR_S, migrate=True) as store:
        batch_id, ids = await open_batch(store, 2)
        await run_all(store, await new_worker(store), ids)
        assert await _minutes(store, batch_id) <= {(await store.now()) // 60 - ago for ago in (0, 1)}


async def _minutes(store: Store, batch_id: str) -> set[float]:
    async with store._db.read() as connection:
        return set((await connection.execute(select(tally.c.minute).where(tally.c.batch_id == batch_id))).scalars())
