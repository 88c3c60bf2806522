"""A provider that is enabled again is free: nothing that the limiter learned against it holds its next call."""

import pytest
import redis.asyncio

from understudy.models.failure import Scope
from understudy.models.limits.state import clear_limits, read_limits
from understudy.worker.failures import LimitSignals
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Refusal
from understudy.worker.limits.limiter import Limiter

MAIN = Candidate(Deployment("alpha", "vendor/large:free", "main", "alpha:main"))
MAINTENANCE = Candidate(Deployment("alpha", "vendor/large:free", "maintenance", "alpha:maintenance"))
OTHER = Candidate(Deployment("alphabet", "vendor/large:free", "main", "alphabet:main"))


async def starts(limiter: Limiter, candidate: Candidate) -> bool:
    return isinstance(await limiter.reserve([candidate], 10), Grant)


async def refuse(limiter: Limiter, candidate: Candidate, hint_s: float | None) -> float | None:
    """One call that the provider turns away; the end of the rest that follows."""
    grant = await limiter.reserve([candidate], 10)
    assert isinstance(grant, Grant)
    await limiter.release(grant, None, refused=True)
    return await limiter.refused(grant, Scope.MODEL, hint_s, "as told")


@pytest.mark.parametrize("scope", [Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER])
async def test_a_cooldown_of_any_scope_is_forgotten(
    limiter: Limiter, connection: redis.asyncio.Redis, scope: Scope
) -> None:
    for each in (MAIN, OTHER):
        await limiter.cool(each.deployment, scope, 3_600.0, "as told")
    assert await clear_limits(connection, "alpha", "alpha:main") == 1
    assert await starts(limiter, MAIN)
    assert isinstance(await limiter.reserve([OTHER], 10), Refusal)


async def test_what_was_learned_and_told_is_forgotten_and_calls_in_flight_are_not(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    await limiter.advertised(MAIN.deployment, LimitSignals(requests_limit=6_000.0))
    assert await starts(limiter, MAIN)
    await refuse(limiter, MAIN, None)
    await refuse(limiter, MAIN, 3_600.0)
    before = (await read_limits(connection)).of("alpha:main", "vendor/large:free")
    assert before.requests.learned is not None and before.requests.advertised is not None
    assert await clear_limits(connection, "alpha") == 2
    seen = (await read_limits(connection)).of("alpha:main", "vendor/large:free")
    assert (seen.requests.learned, seen.requests.advertised, seen.in_flight) == (None, None, 1)


async def test_one_key_is_let_go_without_the_others_of_its_provider(
    limiter: Limiter, connection: redis.asyncio.Redis
) -> None:
    for each in (MAIN, MAINTENANCE):
        assert await refuse(limiter, each, 3_600.0) is not None
    await clear_limits(connection, "alpha", "alpha:main")
    assert await starts(limiter, MAIN)
    assert isinstance(await limiter.reserve([MAINTENANCE], 10), Refusal)


async def test_where_nothing_holds_there_is_nothing_to_forget(connection: redis.asyncio.Redis) -> None:
    assert await clear_limits(connection, "alpha") == 0
