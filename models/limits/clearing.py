"""Clears what the limiter learned about a provider: for `understudy providers enable`."""

import redis.asyncio

from understudy.models.failure import Scope
from understudy.models.limits.state import limiter_keys
from understudy.models.queue import keys


async def clear_limits(redis: redis.asyncio.Redis, provider: str, account: str | None = None) -> int:
    """Clear everything that blocks an account of a provider, or all of its accounts (None). Returns the number of
    records.

    Cooldowns of every scope, breakers, rates learned from refusals and limits advertised in headers: the next calls
    start as if nothing were known. Calls in flight and daily usage are facts and stay. A breaker applies to a model for
    all accounts, so it is closed in either case. Raises RedisError, OSError.
    """
    owner = account or provider
    of_scope = {Scope.MODEL: owner, Scope.ACCOUNT: owner, Scope.PROVIDER: provider}
    beginnings = (keys.rate(owner, ""), *(keys.cool(f"{scope}:{whose}:") for scope, whose in of_scope.items()))
    found = [name for name in await limiter_keys(redis) if f"{name}:".startswith(beginnings)]
    return int(await redis.delete(*found)) if found else 0
