"""Waiting for a job to end: by what a worker publishes, and by one shared query of the ledger."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from ledger_help import new_worker, singles, state_of, succeeded
from redis.asyncio import Redis

from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.producer.api.jobs.waiters import Waiters
from understudy.worker.job.settle import Announcer, Settler

LONG_S = 30.0
CROWD = 2_000


class CountingStore:
    """A ledger in which nothing ends, and that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.jobs = self

    async def ended_among(self, ids: list[str]) -> set[str]:
        self.asked.append(len(ids))
        return set()


@asynccontextmanager
async def hearing(waiters: Waiters, redis: Redis) -> AsyncIterator[None]:
    """Entered once the subscription is active."""
    async with waiters.listening(redis):
        async with asyncio.timeout(LONG_S):
            while not (await redis.pubsub_numsub("understudy:ended"))[0][1]:
                await asyncio.sleep(0.01)
        yield


async def test_a_published_end_is_heard_at_once_by_two_thousand_with_hardly_a_look_into_the_ledger() -> None:
    store, redis = CountingStore(), FakeAsyncRedis(server=FakeServer())
    waiters, announcer = Waiters(store), Announcer(redis)  # type: ignore[arg-type]
    async with hearing(waiters, redis):
        ids = [f"job_{number}" for number in range(CROWD)]
        waiting = asyncio.gather(*(waiters.ended(id_, LONG_S) for id_ in ids))
        await asyncio.sleep(0)
        began = time.monotonic()
        announcer.tell(ids)
        assert all(await waiting)
        took_s = time.monotonic() - began
        await announcer.close()
    assert took_s < 5
    assert len(store.jobs.asked) <= 2 + took_s


async def test_an_end_before_the_wait_is_seen_without_a_message(store: Store) -> None:
    (job_id,) = await singles(store, 1)
    await store.jobs.cancel(job_id)
    assert await Waiters(store).ended(job_id, LONG_S)


async def test_an_end_that_was_not_published_is_found_by_looking(store: Store) -> None:
    (job_id,) = await singles(store, 1)
    waiting = asyncio.create_task(Waiters(store).ended(job_id, LONG_S))
    await asyncio.sleep(0)
    await store.jobs.cancel(job_id)
    began = time.monotonic()
    assert await waiting
    assert time.monotonic() - began < 5


async def test_who_waits_for_what_does_not_end_is_told_so_in_time(store: Store) -> None:
    (job_id,) = await singles(store, 1)
    assert not await Waiters(store).ended(job_id, 0.05)


async def test_a_settle_tells_who_waits(store: Store) -> None:
    told: list[str] = []
    (job_id,) = await singles(store, 1)
    worker = await new_worker(store)
    (started,) = await store.claims.start(worker, [job_id])
    await Settler(worker, store, told.extend).add(succeeded(started))
    assert told == [job_id]
    assert await state_of(store, job_id) is JobState.SUCCEEDED


async def test_without_redis_nothing_fails_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    announcer = Announcer(FakeAsyncRedis(server=server))
    server.connected = False
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            announcer.tell(["job_1"])
            await announcer.close()
    assert len(caplog.records) == 1


async def test_ends_are_heard_again_after_the_subscription_was_cut(redis_url: str) -> None:
    name = f"waiters-{secrets.token_hex(6)}"
    redis = Redis.from_url(redis_url, socket_timeout=2, client_name=name)
    waiters, announcer = Waiters(CountingStore()), Announcer(redis)  # type: ignore[arg-type]
    async with redis, hearing(waiters, redis):
        (subscribed,) = [each for each in await redis.client_list(_type="pubsub") if each["name"] == name]
        await redis.client_kill_filter(_id=subscribed["id"])
        waiting = asyncio.create_task(waiters.ended("job_1", LONG_S))
        async with asyncio.timeout(LONG_S):
            while not waiting.done():
                announcer.tell(["job_1"])
                await asyncio.sleep(0.05)
        await announcer.close()
        assert waiting.result()
