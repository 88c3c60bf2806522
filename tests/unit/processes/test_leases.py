"""Many hold the lock at the same time, or one alone."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from understudy.worker.budgets.fallback_quota import RESERVED
from understudy.worker.leases import Leases, RWLock
from understudy.worker.redis_scripts import ScriptRunner
from understudy.worker.redis_wiped import WipedRedis


async def pass_through(gate: RWLock, seen: list[str]) -> None:
    async with gate.passing():
        seen.append("passed")


async def test_no_other_enters_while_one_is_alone_even_if_it_had_just_been_opened() -> None:
    gate, seen = RWLock(), list[str]()
    async with gate.alone():
        others = [asyncio.create_task(pass_through(gate, seen)) for _ in range(3)]
        await asyncio.sleep(0)
    async with gate.alone():  # before those that were admitted have woken up
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen == []
    await asyncio.gather(*others)
    assert seen == ["passed"] * 3


async def test_who_wants_to_be_alone_waits_for_those_inside() -> None:
    gate, seen = RWLock(), list[str]()

    async def alone() -> None:
        async with gate.alone():
            seen.append("alone")

    async with gate.passing():
        waiting = asyncio.create_task(alone())
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen == []
    await waiting
    assert seen == ["alone"]


@pytest.fixture
async def redis() -> AsyncIterator[FakeAsyncRedis]:
    async with FakeAsyncRedis(server=FakeServer()) as client:
        yield client


async def reserved(leases: Leases) -> float:
    return float(await leases.scripts.run(RESERVED, ["understudy:balance:b"], []))


async def test_a_beat_writes_what_the_worker_knows_whatever_redis_had(redis: FakeAsyncRedis) -> None:
    one, other, amounts = Leases(redis, "one"), Leases(redis, "other"), {"understudy:balance:b": 0.5}
    one.count(lambda: amounts)
    other.count(lambda: {"understudy:balance:b": 0.25})
    await one.beat()
    await other.beat()
    assert await reserved(one) == 0.75
    await redis.flushdb()
    await one.beat()
    assert await reserved(one) == 0.5
    amounts.clear()
    await one.beat()
    assert await reserved(one) == 0


async def test_what_a_worker_may_have_changed_is_corrected_by_its_next_beat(redis: FakeAsyncRedis) -> None:
    leases = Leases(redis, "one")
    async with leases.changing(["understudy:balance:b"]):
        await redis.hset("understudy:balance:b", "w:one", f"3|{(time.time() + 60) * 1000}")  # and the reply was lost
    assert await reserved(leases) == 3
    await leases.beat()
    assert await reserved(leases) == 0


async def test_what_is_released_is_taken_from_the_count_once_even_by_a_call_that_gave_up(redis: FakeAsyncRedis) -> None:
    leases, released = Leases(redis, "one"), list[str]()

    async def release() -> None:
        async with leases.changing(["understudy:balance:b"], released=lambda: released.append("once")):
            assert released == ["once"], "before its script"

    await release()
    async with leases._lock.alone():
        waiting = asyncio.create_task(release())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert released == ["once"] * 2


async def test_counts_in_the_form_of_earlier_versions_are_none(redis: FakeAsyncRedis) -> None:
    leases, ends = Leases(redis, "one"), (time.time() + 60) * 1000
    await redis.hset("understudy:balance:b", mapping={"old": f"3|{ends}", "w:new": f"0.5|{ends}", "spent": "7"})
    assert await reserved(leases) == 0.5


async def test_a_wipe_is_noticed_once_by_each_who_asks(redis: FakeAsyncRedis) -> None:
    scripts = ScriptRunner(redis)
    one, other = WipedRedis(scripts), WipedRedis(scripts)
    assert not await one.was_wiped() and not await one.was_wiped() and not await other.was_wiped()
    await redis.flushdb()
    await asyncio.sleep(0.002)
    assert [await each.was_wiped() for each in (one, one, other, other)] == [True, False, True, False]
