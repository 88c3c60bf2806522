"""The limiter on a real server: lost scripts, a server that refuses, several workers, a strict provider."""

import asyncio
from dataclasses import replace

import pytest
import redis.asyncio
from limiter_simulation import BEGIN_MS, RandomServer, Simulation, StrictServer
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from understudy.models.failure import Scope
from understudy.models.limits.state import end_of_day
from understudy.models.queue import keys
from understudy.worker.failures import LimitSignals
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Hold, Refusal
from understudy.worker.limits.limiter import Limiter
from understudy.worker.redis_scripts import RedisUnavailable

DEPLOYMENT = Deployment("alpha", "large", "main", "alpha:main")
FREE = Candidate(DEPLOYMENT, requests_per_minute=60_000_000)
LIMITED = Candidate(DEPLOYMENT, requests_per_minute=6_000, tokens_per_minute=6_000_000, max_in_flight=50)


async def test_a_call_is_reserved_answered_and_released(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    grant = await limiter.reserve([LIMITED], 100)
    assert isinstance(grant, Grant)
    assert grant.wait_s == 0
    await limiter.release(grant, 70)
    await limiter.answered(grant)
    assert not await connection.exists(keys.flight("alpha:main", "large"))


@pytest.mark.parametrize("loss", ["SCRIPT FLUSH", "FLUSHALL"])
async def test_lost_scripts_are_loaded_again_in_the_middle_of_work(
    limiter: Limiter, connection: redis.asyncio.Redis, loss: str
) -> None:
    async def call_again_and_again() -> None:
        for _ in range(20):
            grant = await limiter.reserve([FREE], 100)
            assert isinstance(grant, Grant)
            await limiter.release(grant, 70)

    async def lose_them() -> None:
        for _ in range(20):
            await connection.execute_command(loss)

    await asyncio.gather(lose_them(), *(call_again_and_again() for _ in range(200)))


async def test_a_redis_that_is_away_says_so() -> None:
    async with redis.asyncio.Redis(unix_socket_path="/nonexistent/redis.sock", retry=Retry(NoBackoff(), 0)) as nowhere:
        leases = Leases(nowhere, "w1")
        limiter = Limiter(leases)
        with pytest.raises(RedisUnavailable, match="Redis is unavailable: ConnectionError"):
            await limiter.reserve([LIMITED], 100)
        with pytest.raises(RedisUnavailable):
            await limiter.cool(DEPLOYMENT, Scope.MODEL, 1.0, "429")
        with pytest.raises(RedisUnavailable):
            await leases.beat()
        with pytest.raises(RedisUnavailable):
            await limiter.outlook([LIMITED], 2.0)


async def test_a_full_memory_says_so_and_passes(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    await limiter.reserve([LIMITED], 100)
    await connection.config_set("maxmemory", "1")
    try:
        with pytest.raises(RedisUnavailable):
            await limiter.reserve([LIMITED], 100)
    finally:
        await connection.config_set("maxmemory", "0")
    assert isinstance(await limiter.reserve([LIMITED], 100), Grant)


async def test_a_replica_says_so_and_passes(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    await limiter.reserve([LIMITED], 100)
    await connection.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(RedisUnavailable):
            await limiter.reserve([LIMITED], 100)
    finally:
        await connection.execute_command("REPLICAOF", "NO", "ONE")
    assert isinstance(await limiter.reserve([LIMITED], 100), Grant)


async def test_workers_together_keep_to_what_may_be_in_flight(redis_url: str) -> None:
    limited = replace(FREE, max_in_flight=7)
    now, most, calls = 0, 0, 0

    async def work(limiter: Limiter) -> None:
        nonlocal now, most, calls
        for _ in range(10):
            while isinstance(grant := await limiter.reserve([limited], 10), Refusal):
                assert grant.hold is Hold.IN_FLIGHT
                await asyncio.sleep(0.001)
            now += 1
            calls += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            await limiter.release(grant, 10)

    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        workers = [Limiter(Leases(connection, f"w{number}")) for number in range(4)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(work(worker) for worker in workers for _ in range(10)))
        flight = await connection.hvals(keys.flight("alpha:main", "large"))
    assert (calls, most) == (400, 7)
    assert flight == []


async def test_workers_together_keep_to_the_rate(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        workers = [Limiter(Leases(connection, f"w{number}")) for number in range(5)]
        for worker in workers:
            worker.scripts.now_ms = BEGIN_MS
        replies = await asyncio.gather(
            *(worker.reserve([Candidate(DEPLOYMENT, 600)], 10) for worker in workers for _ in range(20))
        )
    waits = sorted(reply.wait_s for reply in replies if isinstance(reply, Grant))
    assert waits == pytest.approx([0.0] * 10 + [0.1 * number for number in range(1, 11)])


async def test_workers_together_keep_to_the_day(redis_url: str) -> None:
    """Half of the calls are never made, and others use what these gave back, up to the last call."""
    daily = replace(FREE, requests_per_day=60, tokens_per_day=6_000)
    made = 0

    async def work(limiter: Limiter) -> None:
        nonlocal made
        for number in range(12):
            grant = await limiter.reserve([daily], 100)
            if isinstance(grant, Refusal):
                assert grant.hold is Hold.DAY
            elif number % 2:
                await limiter.cancel(grant)
            else:
                made += 1
                await limiter.release(grant, 100)

    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        workers = [Limiter(Leases(connection, f"w{number}")) for number in range(4)]
        for worker in workers:
            worker.scripts.now_ms = BEGIN_MS
        await asyncio.gather(*(work(worker) for worker in workers for _ in range(5)))
        while isinstance(grant := await workers[0].reserve([daily], 100), Grant):
            made += 1
            await workers[0].release(grant, 100)
        count = await connection.hgetall(keys.day("alpha:main", "large"))
    assert (made, grant.hold, grant.until) == (60, Hold.DAY, end_of_day(BEGIN_MS / 1000))
    assert sorted(count.values()) == [b"0", b"60", b"6000"]


async def test_beats_amid_calls_never_lose_one(redis_url: str) -> None:
    """A heartbeat writes the counts of the moment at which it writes."""
    held: list[Grant] = []

    async def hold_some(limiter: Limiter) -> None:
        for number in range(60):
            grant = await limiter.reserve([FREE], 10)
            assert isinstance(grant, Grant)
            held.append(grant)
            if number % 3:
                await limiter.release(held.pop(), 10)

    async def beat(leases: Leases, work: "asyncio.Future[list[None]]") -> None:
        while not work.done():
            await leases.beat()
            await asyncio.sleep(0)

    async with redis.asyncio.Redis.from_url(redis_url) as connection:
        leases = Leases(connection, "w1")
        limiter = Limiter(leases)
        limiter.count(lambda: [("alpha:main", "large")] * len(held))
        work = asyncio.gather(*(hold_some(limiter) for _ in range(20)))
        await beat(leases, work)
        await work
        (count,) = await connection.hvals(keys.flight("alpha:main", "large"))
    assert int(count.split(b"|")[0]) == len(held) == 400


@pytest.mark.parametrize("per_minute", [600, 6_000])
@pytest.mark.slow
async def test_an_unknown_limit_is_found_and_used(
    limiter: Limiter, connection: redis.asyncio.Redis, per_minute: int
) -> None:
    simulation = Simulation(limiter, StrictServer(per_minute), slots=40)
    start, later = await simulation.run_until(20), await simulation.run_until(120)
    assert (start.used * 20 + later.used * 100) / 120 >= 0.85
    assert later.used >= 0.85
    assert later.refused <= 0.03


async def used_of_what_chance_accepts(limiter: Limiter, share: float, hint_s: float | None, seconds: float) -> float:
    """After ten seconds. Answers and refusals take 0.3 s, and each of 20 slots asks again at once."""
    accepted = 20 / 0.3 * 60 * (1 - share)
    simulation = Simulation(limiter, RandomServer(share, accepted, hint_s), slots=20)
    await simulation.run_until(10)
    return (await simulation.run_until(10 + seconds)).used


@pytest.mark.parametrize("hint_s", [None, 2.0])
@pytest.mark.parametrize(("share", "least"), [(0.03, 0.9), (0.4, 0.5)])
async def test_refusals_by_chance_slow_nothing_down(
    limiter: Limiter, connection: redis.asyncio.Redis, share: float, least: float, hint_s: float | None
) -> None:
    assert await used_of_what_chance_accepts(limiter, share, hint_s, 15) >= least


@pytest.mark.parametrize("hint_s", [None, 2.0])
@pytest.mark.parametrize(("share", "least"), [(0.01, 0.9), (0.1, 0.9), (0.2, 0.5), (0.6, 0.5)])
@pytest.mark.slow
async def test_even_many_refusals_by_chance_slow_nothing_down(
    limiter: Limiter, connection: redis.asyncio.Redis, share: float, least: float, hint_s: float | None
) -> None:
    assert await used_of_what_chance_accepts(limiter, share, hint_s, 50) >= least


@pytest.mark.parametrize("scope", [Scope.MODEL, Scope.PROVIDER])
async def test_one_refusal_among_answered_calls_holds_no_call(
    limiter: Limiter, connection: redis.asyncio.Redis, scope: Scope
) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    await connection.hset(keys.rate("alpha:main", "large"), "window", 1000)
    grants = [await limiter.reserve([UNKNOWN], 100) for _ in range(40)]
    refused = grants[20]
    assert isinstance(refused, Grant)
    assert await limiter.refused(refused, scope, None, "refused") is None


async def test_a_run_of_refusals_without_an_answer_between_rests_all_workers(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    await connection.hset(keys.rate("alpha:main", "large"), "window", 1000)
    grants = [await limiter.reserve([UNKNOWN], 100) for _ in range(20)]
    ends = [await limiter.refused(grant, Scope.PROVIDER, None, "no") for grant in grants if isinstance(grant, Grant)]
    assert ends[-1] == pytest.approx(BEGIN_MS / 1000 + 2, abs=0.002)
    assert isinstance(await limiter.reserve([UNKNOWN], 100), Refusal)


async def test_a_hint_is_followed_where_nothing_speaks_against_it(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    for call in range(100):
        limiter.scripts.now_ms = BEGIN_MS + call * 30
        grant = await limiter.reserve([FREE], 100)
        assert isinstance(grant, Grant)
        await limiter.release(grant, 100)
    grant = await limiter.reserve([FREE], 100)
    assert isinstance(grant, Grant)
    await limiter.release(grant, None, refused=True)
    end = await limiter.refused(grant, Scope.MODEL, 30.0, "429")
    assert end == pytest.approx(limiter.scripts.now_ms / 1000 + 30, abs=0.002)


@pytest.mark.parametrize(("later_ms", "rests"), [(50, True), (250, False)])
async def test_a_hint_is_contradicted_by_the_answer_of_a_call_that_began_clearly_later(
    limiter: Limiter, connection: redis.asyncio.Redis, later_ms: int, rests: bool
) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    refused = await limiter.reserve([FREE], 100)
    limiter.scripts.now_ms = BEGIN_MS + later_ms
    later = await limiter.reserve([FREE], 100)
    assert isinstance(refused, Grant) and isinstance(later, Grant)
    limiter.scripts.now_ms = BEGIN_MS + 300
    await limiter.release(refused, None, refused=True)
    assert await limiter.refused(refused, Scope.MODEL, 30.0, "429") is not None
    await limiter.release(later, 100)
    assert isinstance(await limiter.reserve([FREE], 100), Refusal) is rests


@pytest.mark.slow
async def test_a_slow_limit_is_used_too(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    simulation = Simulation(limiter, StrictServer(60), slots=40)
    await simulation.run_until(60)
    use = await simulation.run_until(600)
    assert use.used >= 0.75
    assert use.refused <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("slots", [10, 40])
async def test_an_unknown_slow_limit_is_used_from_the_start(
    limiter: Limiter, connection: redis.asyncio.Redis, slots: int
) -> None:
    simulation = Simulation(limiter, StrictServer(60), slots=slots)
    first, second = await simulation.run_until(60), await simulation.run_until(120)
    assert (first.used + second.used) / 2 >= 0.8
    assert second.refused <= 0.1


@pytest.mark.slow
async def test_a_limit_that_rises_or_falls_tenfold_is_found_again(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    server = StrictServer(600)
    simulation = Simulation(limiter, server, slots=40)
    await simulation.run_until(60)
    server.per_minute = 6_000
    await simulation.run_until(60 + 90)
    assert (await simulation.run_until(60 + 90 + 60)).used >= 0.8
    server.per_minute = 600
    await simulation.run_until(210 + 30)
    use = await simulation.run_until(210 + 30 + 60)
    assert use.used >= 0.85
    assert use.refused <= 0.05


UNKNOWN = Candidate(DEPLOYMENT)
WINDOW = LimitSignals(requests_limit=600, requests_remaining=600, requests_reset_s=60)


async def granted_within_a_second(limiter: Limiter, candidate: Candidate) -> int:
    grants = 0
    while isinstance(await limiter.reserve([candidate], 100), Grant):
        grants += 1
    return grants


async def test_a_limit_that_headers_tell_becomes_the_rate(limiter: Limiter) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    assert isinstance(await limiter.reserve([UNKNOWN], 100), Grant)
    await limiter.advertised(DEPLOYMENT, WINDOW)
    limiter.scripts.now_ms = BEGIN_MS + 10_000
    assert 19 <= await granted_within_a_second(limiter, UNKNOWN) <= 21


async def test_a_configured_limit_wins_over_the_headers(limiter: Limiter) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    await limiter.advertised(DEPLOYMENT, WINDOW)
    limiter.scripts.now_ms = BEGIN_MS + 10_000
    assert await granted_within_a_second(limiter, LIMITED) == LIMITED.max_in_flight


async def test_headers_take_no_burst_from_a_configured_limit(limiter: Limiter) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    configured = Candidate(DEPLOYMENT, requests_per_minute=600)
    assert isinstance(await limiter.reserve([configured], 100), Grant)
    await limiter.advertised(DEPLOYMENT, WINDOW)
    assert await granted_within_a_second(limiter, configured) == 19


async def test_what_others_use_of_an_account_slows_us_down_until_the_reset(limiter: Limiter) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    await limiter.advertised(DEPLOYMENT, replace(WINDOW, requests_remaining=60.0))
    limiter.scripts.now_ms = BEGIN_MS + 2_000
    assert 1 <= await granted_within_a_second(limiter, LIMITED) <= 3
    limiter.scripts.now_ms = BEGIN_MS + 10_000
    assert await granted_within_a_second(limiter, UNKNOWN) >= 19


async def test_what_we_used_ourselves_does_not_slow_us_down(limiter: Limiter) -> None:
    for call in range(300):
        limiter.scripts.now_ms = BEGIN_MS + call * 100
        grant = await limiter.reserve([UNKNOWN], 100)
        assert isinstance(grant, Grant)
        await limiter.release(grant, 100)
    await limiter.advertised(DEPLOYMENT, replace(WINDOW, requests_remaining=300.0))
    limiter.scripts.now_ms = BEGIN_MS + 33_000
    assert await granted_within_a_second(limiter, UNKNOWN) >= 19


async def test_a_daily_limit_sets_no_pace_until_it_is_used_up(limiter: Limiter) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    daily = replace(WINDOW, requests_limit=14_400.0, requests_period_s=86_400.0, requests_reset_s=600.0)
    await limiter.advertised(DEPLOYMENT, daily)
    assert await granted_within_a_second(limiter, LIMITED) == LIMITED.max_in_flight
    used_up = Limiter(Leases(limiter.scripts.redis, "w2"))
    used_up.scripts.now_ms = BEGIN_MS
    await used_up.advertised(DEPLOYMENT, replace(daily, requests_remaining=0.0))
    refusal = await used_up.reserve([UNKNOWN], 100)
    assert isinstance(refusal, Refusal)
    assert refusal.until == pytest.approx(BEGIN_MS / 1000 + 601, abs=0.002)


async def test_tokens_that_headers_tell_are_paced_too(limiter: Limiter) -> None:
    limiter.scripts.now_ms = BEGIN_MS
    await limiter.advertised(DEPLOYMENT, LimitSignals(tokens_limit=60_000, tokens_remaining=60_000, tokens_reset_s=0.0))
    limiter.scripts.now_ms = BEGIN_MS + 10_000
    assert 19 <= await granted_within_a_second(limiter, UNKNOWN) <= 21


async def test_a_worker_tells_only_what_is_new(limiter: Limiter, connection: redis.asyncio.Redis) -> None:
    await limiter.advertised(DEPLOYMENT, WINDOW)
    await connection.flushdb()
    await limiter.advertised(DEPLOYMENT, WINDOW)
    assert not await connection.exists(keys.rate("alpha:main", "large"))
    await limiter.advertised(DEPLOYMENT, replace(WINDOW, requests_limit=700.0))
    assert await connection.hget(keys.rate("alpha:main", "large"), "advertised_requests") == b"700"


@pytest.mark.parametrize("limit", [0.0, 1e12])
async def test_a_limit_out_of_all_reason_is_not_believed(
    limiter: Limiter, connection: redis.asyncio.Redis, limit: float
) -> None:
    await limiter.advertised(DEPLOYMENT, replace(WINDOW, requests_limit=limit))
    assert not await connection.hexists(keys.rate("alpha:main", "large"), "advertised_requests")
