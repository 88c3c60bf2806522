"""Tickets and the bridge against a real server: order, refusals, waiting, restaging, heartbeats, cleanup."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import rq.registry
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from understudy.models.queue.keys import JOB_FUNCTION, QUEUES
from understudy.models.queue.tickets import DESCRIPTION, FAILURE_TTL_S, is_ticket, stage, staged_ids, ticket_data
from understudy.models.state import Priority
from understudy.worker.rq.bridge import EXECUTION_TTL_S, Bridge
from understudy.worker.rq.worker import forget_worker

WORKER = "bridge"
BULK = Priority.BULK


class Clock:
    """Machine time, plus the time that a test adds."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bridge(redis: Redis, clock: Clock) -> AsyncIterator[Bridge]:
    async with Bridge(redis, WORKER, clock) as bridge:
        yield bridge


@pytest.fixture
async def open_bridge(redis: Redis, clock: Clock) -> AsyncIterator[Callable[[str], Awaitable[Bridge]]]:
    async with AsyncExitStack() as stack:

        async def open(name: str) -> Bridge:
            return await stack.enter_async_context(Bridge(redis, name, clock))

        yield open


def bulk(*ids: str) -> list[tuple[str, Priority]]:
    return [(job_id, BULK) for job_id in ids]


async def keys_besides_the_queues(redis: Redis) -> set[str]:
    return {key.decode() async for key in redis.scan_iter()} - {"rq:queues"}


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_who_submits_thousands_leaves_the_rest_of_them_to_the_planner(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1", "b2", "b3"))
    mixed = [("i1", Priority.INTERACTIVE), ("n1", Priority.NORMAL), ("i2", Priority.INTERACTIVE), ("b4", BULK)]
    more = [("i3", Priority.INTERACTIVE), ("n2", Priority.NORMAL), ("i4", Priority.INTERACTIVE)]
    assert await stage(redis, mixed + more, behind_at_most=3) == 4
    assert await staged_ids(redis) == {"interactive": ["i1", "i2", "i3"], "normal": ["n1"], "bulk": ["b1", "b2", "b3"]}
    assert await bridge.claim(9) == ["i1", "i2", "i3", "n1", "b1", "b2", "b3"]
    assert await stage(redis, more, behind_at_most=3) == 3


async def test_urgent_queues_are_claimed_first_and_each_in_its_order(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1", "b2"))
    await stage(redis, [("n1", Priority.NORMAL), ("i1", Priority.INTERACTIVE), ("n2", Priority.NORMAL)])
    assert await staged_ids(redis) == {"interactive": ["i1"], "normal": ["n1", "n2"], "bulk": ["b1", "b2"]}
    assert await bridge.claim(2) == ["i1", "n1"]
    assert await bridge.claim(2) == ["n2", "b1"]
    assert await bridge.claim(2) == ["b2"]
    assert await bridge.claim(2) == []


async def test_a_worker_of_one_queue_leaves_the_others_alone(redis: Redis, clock: Clock) -> None:
    await stage(redis, [("n1", Priority.NORMAL), ("b1", BULK)])
    async with Bridge(redis, WORKER, clock, queues=["bulk"]) as bridge:
        assert await bridge.claim(10) == ["b1"]
    assert (await staged_ids(redis))["normal"] == ["n1"]


async def test_what_cannot_be_a_ticket_is_passed_over_without_a_trace(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1", "b2", "b3"))
    await redis.delete("rq:job:b2")
    await redis.set("rq:job:no_hash", "a string")
    await redis.hset(b"rq:job:no id: \xff", "data", ticket_data("b1"))
    await redis.rpush("rq:queue:bulk", "no_hash", b"no id: \xff")
    assert await bridge.claim(10) == ["b1", "b3"]
    assert (await staged_ids(redis))["bulk"] == []
    assert await redis.zcard("rq:wip:bulk") == 2
    assert await redis.zcard("rq:failed:bulk") == 0


async def test_a_ticket_that_went_through_rqs_own_tools_is_still_ours(redis_url: str, bridge: Bridge) -> None:
    with SyncRedis.from_url(redis_url) as connection:
        queue = Queue("bulk", connection=connection, serializer=JSONSerializer)
        queue.enqueue(JOB_FUNCTION, "b1", job_id="b1")
    assert await bridge.claim(10) == ["b1"]


NOT_OURS = {
    "another function": b'["os.system", null, ["b1"], {}]',
    "another id": ticket_data("another").encode(),
    "more arguments": json.dumps([JOB_FUNCTION, None, ["b1", "more"], {}]).encode(),
    "keyword arguments": json.dumps([JOB_FUNCTION, None, ["b1"], {"more": 1}]).encode(),
    "a method": json.dumps([JOB_FUNCTION, "an instance", ["b1"], {}]).encode(),
    "compressed": zlib.compress(b'["os.system", null, ["b1"], {}]'),
    "a bomb": zlib.compress(b"[" * 1_000_000),
    "a deep nest": b"[" * 1_000_000,
    "a pickle": b"\x80\x05\x95 a pickle",
    "nothing": b"",
}


@pytest.mark.parametrize("data", NOT_OURS.values(), ids=NOT_OURS.keys())
async def test_a_job_that_names_anything_but_our_function_is_refused(
    data: bytes, redis_url: str, redis: Redis, bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    await bridge.beat()
    await stage(redis, bulk("b0", "b1", "b2"))
    await redis.hset("rq:job:b1", "data", data)
    assert await bridge.claim(10) == ["b0", "b2"]
    assert "b1" in caplog.text and "Rejected" in caplog.text
    with SyncRedis.from_url(redis_url) as connection:
        job = Job.fetch("b1", connection=connection, serializer=JSONSerializer)
        result = job.latest_result()
        assert job.is_failed
        assert "Rejected" in str(result and result.exc_string)
        assert rq.registry.FailedJobRegistry("bulk", connection=connection).get_job_ids() == ["b1"]
        assert sorted(rq.registry.StartedJobRegistry("bulk", connection=connection).get_job_ids()) == ["b0", "b2"]
        assert connection.hget(f"rq:worker:{WORKER}", "failed_job_count") == b"1"
        assert 0 < connection.ttl("rq:job:b1") <= FAILURE_TTL_S
    assert {execution.job_id for execution in bridge.executions} == {"b0", "b2"}


def test_only_the_call_of_our_function_with_the_own_id_is_a_ticket() -> None:
    assert is_ticket("b1", ticket_data("b1").encode())
    assert is_ticket("b1", zlib.compress(ticket_data("b1").encode()))
    assert not is_ticket("b1", ticket_data("b2").encode())


async def test_waiting_takes_nothing_and_ends_as_soon_as_there_is_a_ticket(redis: Redis, bridge: Bridge) -> None:
    started = time.monotonic()
    await bridge.wait(0.05)
    assert time.monotonic() - started >= 0.05
    for priority in Priority:
        waiting = asyncio.create_task(bridge.wait(60))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        staged_at = time.monotonic()
        await stage(redis, [("job", priority)])
        await asyncio.wait_for(waiting, 5)
        assert time.monotonic() - staged_at < 0.5
        assert (await staged_ids(redis))[priority.queue] == ["job"]
        assert await bridge.claim(1) == ["job"]
        await bridge.finish(["job"])


async def test_waiting_returns_at_once_while_tickets_wait(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1", "b2", "b3"))
    await asyncio.wait_for(bridge.wait(60), 5)
    await asyncio.wait_for(bridge.wait(60), 5)
    assert (await staged_ids(redis))["bulk"] == ["b1", "b2", "b3"]


async def test_waiting_does_not_spin_while_rq_is_suspended(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1"))
    await redis.set("rq:suspended", 1)
    assert await bridge.claim(1) == []
    started = time.monotonic()
    await bridge.wait(0.05)
    assert time.monotonic() - started >= 0.05


async def test_cancelled_waits_cost_neither_tickets_nor_connections(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as own:
        async with Bridge(own, WORKER, time.time) as bridge:
            for _ in range(20):
                waiting = asyncio.create_task(bridge.wait(60))
                await asyncio.sleep(0.005)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            assert len(await redis.client_list()) <= 2 + len(QUEUES)
            await stage(redis, bulk("b1"))
            await asyncio.wait_for(bridge.wait(60), 5)
        assert (await staged_ids(redis))["bulk"] == ["b1"]

        async def none_is_blocked() -> bool:
            return int((await redis.info("clients"))["blocked_clients"]) == 0

        await until(none_is_blocked)


async def test_a_hundred_thousand_tickets_are_staged_and_kept_in_order(redis: Redis) -> None:
    ids = [f"job_{number:06}" for number in range(100_000)]
    assert await stage(redis, bulk(*ids)) == 100_000
    assert (await staged_ids(redis))["bulk"] == ids
    assert await redis.smembers("rq:queues") == {b"rq:queue:bulk"}


async def test_tickets_can_be_staged_again_after_redis_was_wiped(redis: Redis, bridge: Bridge) -> None:
    await bridge.beat()
    await stage(redis, bulk("b1", "b2"))
    assert await bridge.claim(1) == ["b1"]
    await redis.flushdb()
    await stage(redis, bulk("b2"))
    assert await bridge.claim(10) == ["b2"]
    await bridge.finish(["b1", "b2"])
    assert await redis.hget("rq:job:b2", "status") == b"finished"
    assert not await redis.exists("rq:job:b1")
    assert not await redis.exists(f"rq:worker:{WORKER}")
    await bridge.beat()
    assert await redis.smembers("rq:workers") == {f"rq:worker:{WORKER}".encode()}
    assert await redis.smembers("rq:workers:bulk") == {f"rq:worker:{WORKER}".encode()}
    assert await redis.hget(f"rq:worker:{WORKER}", "queues") == ",".join(QUEUES).encode()
    assert await redis.ttl(f"rq:worker:{WORKER}") > 0


async def test_scripts_are_found_again_after_the_server_forgot_them(redis: Redis, bridge: Bridge) -> None:
    await redis.script_flush()
    await stage(redis, bulk("b1"))
    await redis.script_flush()
    assert await bridge.claim(1) == ["b1"]
    await redis.script_flush()
    await bridge.beat()
    await bridge.finish(["b1"])
    assert await redis.hget("rq:job:b1", "status") == b"finished"


async def test_a_finished_ticket_can_be_staged_again_and_counts_as_waiting_only(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1"))
    await bridge.finish(await bridge.claim(1))
    await stage(redis, bulk("b1"))
    assert await keys_besides_the_queues(redis) == {"rq:queue:bulk", "rq:job:b1"}
    assert await redis.hmget("rq:job:b1", "status", "description") == [b"queued", DESCRIPTION.encode()]
    assert await redis.ttl("rq:job:b1") == -1
    await bridge.finish(await bridge.claim(1))
    assert await redis.xlen("rq:results:b1") == 1


async def test_a_ticket_staged_again_before_it_was_finished_is_still_waiting(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1"))
    assert await bridge.claim(1) == ["b1"]
    await stage(redis, bulk("b1"))
    await bridge.finish(["b1"])
    assert await redis.hget("rq:job:b1", "status") == b"queued"
    assert await redis.ttl("rq:job:b1") == -1
    assert await bridge.claim(1) == ["b1"]


async def test_the_last_execution_closes_a_ticket(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1"))
    assert await bridge.claim(1) == ["b1"]
    await stage(redis, bulk("b1"))
    assert await bridge.claim(1) == ["b1"]
    await bridge.finish(["b1"])
    assert await redis.hget("rq:job:b1", "status") == b"started"
    await bridge.finish(["b1"])
    assert await redis.hget("rq:job:b1", "status") == b"finished"
    assert bridge.executions == ()


async def test_a_doubled_ticket_is_claimed_once_and_leaves_nothing_running(redis: Redis, bridge: Bridge) -> None:
    await stage(redis, bulk("b1", "b1", "b2"))
    assert await bridge.claim(10) == ["b1", "b2"]
    await bridge.finish(["b1", "b2", "unknown"])
    assert bridge.executions == ()
    assert await redis.zcard("rq:wip:bulk") == 0
    assert await redis.hget("rq:job:b1", "status") == b"finished"


async def test_what_redis_could_not_be_told_is_told_with_the_next_beat(
    redis: Redis, bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"job_{number}" for number in range(450)]
    await stage(redis, bulk(*ids))
    claimed = [job_id for _ in range(5) for job_id in await bridge.claim(100)]
    assert claimed == ids

    async def unreachable(*arguments: object, **keywords: object) -> None:
        raise RedisError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(redis, "execute_command", unreachable)
        with pytest.raises(RedisError):
            await bridge.finish(claimed)
    assert await redis.zcard("rq:wip:bulk") == 450
    await bridge.beat()
    assert await redis.zcard("rq:wip:bulk") == 0
    assert await redis.zcard("rq:finished:bulk") == 450
    assert bridge.executions == ()


async def test_beats_keep_hundreds_of_executions_alive_and_do_not_revive_ended_ones(
    redis: Redis, bridge: Bridge, clock: Clock
) -> None:
    ids = [f"job_{number}" for number in range(300)]
    await stage(redis, bulk(*ids))
    for _ in range(3):
        await bridge.claim(100)
    ended, *running = bridge.executions
    await redis.delete(f"rq:execution:{ended.job_id}:{ended.id}")
    clock.ahead_s = 60.0
    await bridge.beat()
    expiries = dict(await redis.zrange("rq:wip:bulk", 0, -1, withscores=True))
    for execution in running:
        entry = f"{execution.job_id}:{execution.id}"
        assert expiries[entry.encode()] > time.time() + EXECUTION_TTL_S
        assert await redis.ttl(f"rq:execution:{entry}") > EXECUTION_TTL_S - 5
    assert not await redis.exists(f"rq:execution:{ended.job_id}:{ended.id}")


async def test_beats_drop_what_has_expired_from_the_registries(redis: Redis, bridge: Bridge, clock: Clock) -> None:
    await stage(redis, bulk("b1"))
    await bridge.finish(await bridge.claim(1))
    assert await redis.zcard("rq:finished:bulk") == 1
    clock.ahead_s = 3600.0
    await bridge.beat()
    assert await redis.zcard("rq:finished:bulk") == 0


async def test_a_dead_worker_is_forgotten_with_all_it_had_started(
    redis: Redis, open_bridge: Callable[[str], Awaitable[Bridge]]
) -> None:
    dead, alive = await open_bridge("dead"), await open_bridge("alive")
    await dead.beat()
    await stage(redis, [(f"job_{number:03}", Priority(number % 3)) for number in range(300)])
    for _ in range(3):
        await dead.claim(100)
    await stage(redis, bulk("shared"))
    await dead.claim(1)
    await stage(redis, bulk("shared"))
    assert await alive.claim(1) == ["shared"]
    await forget_worker(redis, "dead")
    (execution,) = alive.executions
    assert await keys_besides_the_queues(redis) == {
        "rq:job:shared",
        f"rq:execution:shared:{execution.id}",
        "rq:executions:shared",
        "rq:wip:bulk",
        "rq:worker:alive:executions",
    }
    await stage(redis, bulk("job_000"))
    assert await alive.claim(1) == ["job_000"]


async def test_forgetting_an_unknown_worker_is_harmless(redis: Redis) -> None:
    await forget_worker(redis, "never heard of")
    assert await keys_besides_the_queues(redis) == set()


async def test_waiting_says_when_redis_is_unreachable(bridge: Bridge, redis: Redis) -> None:
    with pytest.raises(RedisError):
        async with Redis(unix_socket_path="/nonexistent/redis.sock", retry=None) as nowhere:
            async with Bridge(nowhere, WORKER, time.time) as lost:
                await lost.wait(5)
