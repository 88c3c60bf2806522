"""Anything can be written to Redis by those who can write to it: it ends no listener, reader or worker of ours."""

import asyncio
import pickle
import time

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.exceptions import ResponseError
from test_api_waiters import LONG_S, CountingStore, hearing

from examples import examples
from understudy.models.config.provider_settings import Limits
from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import of_batch, reserved_usd
from understudy.models.failure import Scope
from understudy.models.limits.state import LimitState, read_limits
from understudy.models.queue import keys
from understudy.models.queue.keys import QUEUES
from understudy.models.queue.tickets import queue_key, stage, staged_ids
from understudy.models.state import Priority
from understudy.producer.api.jobs.waiters import Waiters
from understudy.producer.status.provider_state import LedgerPart, provider_documents
from understudy.worker.background import LEAD_FOR_S, LeaderLock
from understudy.worker.budgets.fallback_quota import ACQUIRE
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Refusal
from understudy.worker.limits.latency import Latencies
from understudy.worker.limits.limiter import ASKED_AGAIN_S, Limiter
from understudy.worker.redis_scripts import RedisUnavailable, Script, ScriptRunner
from understudy.worker.redis_wrong_types import drop_misfits, is_misread
from understudy.worker.rq.bridge import Bridge
from understudy.worker.rq.worker import RegisteredWorker

DEPLOYMENT = Deployment("alpha", "large", "main", "alpha:main")
ACCOUNT = (DEPLOYMENT.account, DEPLOYMENT.model)
LIMITED = Candidate(DEPLOYMENT, 6_000, 1_000_000, 50, 10_000, 10_000_000)
COOL = [keys.cooldown(scope, "alpha", *ACCOUNT) for scope in (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER)]
OURS = [keys.rate(*ACCOUNT), keys.flight(*ACCOUNT), keys.day(*ACCOUNT), *COOL]
FIELDS = (
    *(
        "requests",
        "tokens",
        "learned",
        "learned_at",
        "learned_since",
        "advertised_requests",
        "advertised_tokens",
        "latest",
        "short",
    ),
    *(
        "long",
        "short_since",
        "long_since",
        "window",
        "window_at",
        "stuck",
        "began",
        "number",
        "booked",
        "until",
        "streak",
    ),
    *("since", "probe", "hinted", "closed", "recovers", "brake_requests", "brake_requests_until", "w1", "w2", "reason"),
)
ODD = [
    b"",
    b"\xff\xfe\x00",
    b"nan",
    b"-inf",
    b"inf",
    b"1e308",
    b"-1",
    b"0",
    b"9" * 400,
    b"x|y",
    b"inf|inf",
    b"1|",
    b"[" * 9,
]

fields = st.dictionaries(
    st.sampled_from([*(name.encode() for name in FIELDS), b"\xff"]), st.sampled_from(ODD), max_size=6
)


@pytest.mark.parametrize("message", [b"\xff\xfe\x00", b"job_\xff job_x", b"x" * 2_000_000, b"", b"   ", b"\x00"])
async def test_an_odd_message_on_the_channel_of_ends_ends_no_listener(
    connection: redis.asyncio.Redis, message: bytes
) -> None:
    waiters = Waiters(CountingStore())  # type: ignore[arg-type]
    async with hearing(waiters, connection):
        waiting = asyncio.create_task(waiters.ended("job_1", LONG_S))
        await asyncio.sleep(0)
        await connection.publish(keys.ENDED, message)
        await connection.publish(keys.ENDED, "job_1")
        assert await waiting


@examples(60)
@given(hashes=st.dictionaries(st.sampled_from(OURS), fields))
def test_whatever_the_limiters_hashes_hold_can_be_shown(
    redis_server: str, hashes: dict[str, dict[bytes, bytes]]
) -> None:
    async def read() -> LimitState:
        async with redis.asyncio.Redis.from_url(redis_server) as connection:
            await connection.flushdb()
            for name, hash_ in hashes.items():
                await write(connection, name, hash_)
            return await read_limits(connection, [ACCOUNT])

    state = asyncio.run(read())
    settings = Settings.model_validate({"providers": {"alpha": {"preset": "openai", "api_keys": ["env.A"]}}})
    for document in provider_documents(settings, LedgerPart(), state):
        assert document["provider"] == "alpha"
    state.of(*ACCOUNT).requests.next_start(None, state.now)
    state.of(*ACCOUNT).day.next_start(Limits(requests_per_day=1), state.now)


async def write(connection: redis.asyncio.Redis, name: str, hash_: dict[bytes, bytes]) -> None:
    await connection.delete(name)
    if hash_:
        await connection.hset(name, mapping=hash_)


@examples(60)
@given(hashes=st.dictionaries(st.sampled_from(OURS), fields, min_size=1))
def test_whatever_they_hold_the_limiter_lets_calls_start_again(
    redis_server: str, hashes: dict[str, dict[bytes, bytes]]
) -> None:
    """It may refuse for as long as it is told to, two days at most, or ignore what it cannot read. It raises nothing
    else, and no wait is endless."""

    async def ask() -> None:
        async with redis.asyncio.Redis.from_url(redis_server) as connection:
            await connection.flushdb()
            for name, hash_ in hashes.items():
                await write(connection, name, hash_)
            limiter = Limiter(Leases(connection, "w1"))
            for _ in range(len(OURS) + 1):
                try:
                    (outlook,) = await limiter.outlook([LIMITED], 1.0, 100)
                    reply = await limiter.reserve([LIMITED], 100)
                    break
                except RedisUnavailable:
                    continue
            else:
                pytest.fail("what cannot be read is not forgotten")
            assert outlook.first_at <= time.time() + ASKED_AGAIN_S + 5
            if isinstance(reply, Grant):
                assert 0 <= reply.wait_s <= 1.0
                async with asyncio.timeout(20):
                    await asyncio.gather(limiter.still_holds(reply), return_exceptions=True)
                    await asyncio.gather(limiter.release(reply, 10), return_exceptions=True)
            else:
                assert isinstance(reply, Refusal) and reply.until <= time.time() + ASKED_AGAIN_S + 5
            await read_limits(connection)

    asyncio.run(ask())


async def test_a_key_of_another_type_is_read_as_nothing(connection: redis.asyncio.Redis) -> None:
    await connection.set(keys.rate(*ACCOUNT), "x")
    await connection.hset(b"understudy:rate:\xff:b:c", "learned", "1")
    await connection.hset(keys.flight(*ACCOUNT), "w:w1", f"3|{(time.time() + 60) * 1000}")
    assert (await read_limits(connection)).of(*ACCOUNT).in_flight == 3


async def test_odd_reservations_are_none(connection: redis.asyncio.Redis) -> None:
    subject, later = of_batch("batch_1"), (time.time() + 60) * 1000
    held = {"w:a": b"\xff", "w:b": "nan|nan", "w:c": "1", "w:d": f"0.5|{later}", "w:\u00e9": "|", "spent": "x"}
    await connection.hset(keys.balance(subject.key), mapping=held)  # type: ignore[arg-type]
    assert await reserved_usd(connection, subject) == 0.5


async def test_odd_ids_in_the_queues_hide_no_ticket_and_start_nothing(connection: redis.asyncio.Redis) -> None:
    odd = [b"\xff\xfe", b"", b"a:b", b"j\xc3\xb6b", b"a" * 100_000, b"unknown"]
    await connection.rpush(queue_key("normal"), *odd)
    await stage(connection, [("job_1", Priority.NORMAL)])
    for id_ in odd:
        await connection.hset(b"rq:job:" + id_, mapping={"data": pickle.dumps(print)})
    assert "job_1" in (await staged_ids(connection))["normal"]
    async with Bridge(connection, "w1", time.time) as bridge:
        assert await bridge.claim(10) == ["job_1"]
    assert await connection.llen(queue_key("normal")) == 0


@pytest.mark.parametrize("ttl_s", [None, 1_000_000])
@pytest.mark.parametrize("kind", ["string", "list"])
async def test_a_lead_that_no_worker_took_ends_like_any_other(
    connection: redis.asyncio.Redis, kind: str, ttl_s: int | None
) -> None:
    await (connection.set(keys.PLANNER, b"\xff") if kind == "string" else connection.rpush(keys.PLANNER, "x"))
    if ttl_s:
        await connection.expire(keys.PLANNER, ttl_s)
    assert not await LeaderLock(ScriptRunner(connection), "w1").held()
    assert 0 < await connection.pttl(keys.PLANNER) <= LEAD_FOR_S * 1000


async def test_a_wipe_that_is_yet_to_come_holds_up_no_fallback(connection: redis.asyncio.Redis) -> None:
    await connection.set(keys.KNOWN_SINCE, "1e300")
    names = [keys.KNOWN_SINCE, keys.fallbacks("b")]
    _, for_ms = await ScriptRunner(connection).run(ACQUIRE, names, ["w1", 1000, 500])
    assert for_ms <= 500


async def test_latencies_that_are_none_are_left_out(connection: redis.asyncio.Redis) -> None:
    at = {f"at:{step}": time.time() * 1000 for step in ("a/b", "c/d")}
    await connection.hset(keys.LATENCY, mapping={"a/b": "abc", "c/d": "12.5", b"\xff": "1", **at})  # type: ignore[arg-type]
    latencies = Latencies(ScriptRunner(connection))
    await latencies.share()
    assert (latencies.of("a/b"), latencies.of("c/d")) == (None, 12.5)


ADD = Script.of("redis.call('HSET', KEYS[1], 'sum', redis.call('HGET', KEYS[1], 'sum') + ARGV[2])\nreturn 7")


@pytest.mark.parametrize("kind", ["value", "type"])
async def test_what_a_script_cannot_read_is_gone_for_the_next_and_nothing_else_is(
    connection: redis.asyncio.Redis, kind: str
) -> None:
    await connection.set("understudy:other", "kept")
    await (connection.hset("understudy:odd", "sum", "x") if kind == "value" else connection.set("understudy:odd", "x"))
    with pytest.raises(RedisUnavailable):
        await ScriptRunner(connection).run(ADD, ["understudy:odd"], [1])
    assert await connection.keys("understudy:*") == [b"understudy:other"]


async def test_a_redis_that_is_full_loses_nothing(connection: redis.asyncio.Redis) -> None:
    await connection.hset("understudy:odd", "sum", "1")
    await connection.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisUnavailable):
            await ScriptRunner(connection).run(ADD, ["understudy:odd"], [1])
    finally:
        await connection.config_set("maxmemory", 0)
    assert await connection.hget("understudy:odd", "sum") == b"1"


OF_ANOTHER_TYPE: list[str] = [
    *(queue_key(queue) for queue in QUEUES),
    *("rq:queues", "rq:workers", "rq:workers:normal", "rq:worker:w1", "rq:worker:w1:executions"),
    *("rq:wip:normal", "rq:finished:normal", "rq:failed:normal"),
    *(*OURS, keys.PLANNER, keys.LATENCY, keys.balance("batch:b"), keys.fallbacks("b")),
]


async def spoil(connection: redis.asyncio.Redis, name: str) -> None:
    await connection.delete(name)
    await (connection.hset(name, "a", "b") if name == keys.PLANNER else connection.set(name, "x"))


async def test_every_key_of_ours_that_is_of_another_type_is_deleted_and_no_other(
    connection: redis.asyncio.Redis,
) -> None:
    for name in OF_ANOTHER_TYPE:
        await spoil(connection, name)
    foreign = [b"rq:queue:of_another", b"rq:unheard", b"understudyx", b"rq:suspended"]
    for name in foreign:
        await connection.set(name, "x")
    await connection.set(keys.KNOWN_SINCE, "1")
    assert await drop_misfits(connection) == len(OF_ANOTHER_TYPE)
    assert set(await connection.keys("*")) == {*foreign, keys.KNOWN_SINCE.encode()}
    assert await drop_misfits(connection) == 0


@pytest.mark.parametrize("name", [queue_key("normal"), "rq:wip:normal", "rq:worker:w1:executions"])
async def test_a_worker_that_cannot_claim_makes_room_and_claims(connection: redis.asyncio.Redis, name: str) -> None:
    await spoil(connection, name)
    async with Bridge(connection, "w1", time.time) as bridge:
        if name != queue_key("normal"):
            await stage(connection, [("job_1", Priority.NORMAL)])
        with pytest.raises(ResponseError) as refused:
            await bridge.claim(10)
            await bridge.wait(0.1)
        await bridge.repair(refused.value)
        await stage(connection, [("job_1", Priority.NORMAL)])
        assert await bridge.claim(10) == ["job_1"]


@pytest.mark.parametrize(
    ("said", "misread"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", True),
        ("user_script:12: attempt to compare nil with number script: abc, on @user_script:12.", True),
        ("Error running script (call to f_1): @user_script:1: WRONGTYPE Operation against a key", True),
        ("hash value is not an integer", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("READONLY You can't write against a read only replica.", False),
        ("NOPERM this user has no permissions to run the 'evalsha' command", False),
        ("MISCONF Redis is configured to save RDB snapshots", False),
    ],
)
def test_only_errors_about_stored_values_count_as_misread(said: str, misread: bool) -> None:
    assert is_misread(ResponseError(said)) is misread
    assert not is_misread(OSError(said))


class Claims(RegisteredWorker):
    async def main(self, redis: redis.asyncio.Redis, bridge: Bridge, *, burst: bool) -> int:
        claimed = await bridge.claim(10)
        await bridge.finish(claimed)
        return len(claimed)


@pytest.mark.parametrize("name", ["rq:workers", "rq:workers:bulk", "rq:worker:w1", "rq:wip:normal", "rq:finished:bulk"])
def test_a_worker_starts_whatever_its_keys_contain(redis_url: str, name: str) -> None:
    with SyncRedis.from_url(redis_url) as connection:
        connection.set(name, "x")
        asyncio.run(ticket_for("job_1", redis_url))
        assert Claims(list(QUEUES), name="w1", connection=connection).work(burst=True)
        assert connection.type(name) != b"string"


async def ticket_for(job_id: str, url: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as connection:
        await stage(connection, [(job_id, Priority.NORMAL)])
