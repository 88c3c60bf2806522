"""What the limiter learned against a provider, forgotten by hand: for `understudy providers enable`."""

import redis.asyncio

from understudy.models.failure import Scope
from understudy.models.limits.state import limiter_keys
from understudy.models.queue import keys


async def clear_limits(redis: redis.asyncio.Redis, provider: str, account: str | None = None) -> int:
    """Forget all that holds an account of a provider, or all of its accounts (None). Returns how many records it was.

    Cooldowns of every scope, breakers, rates that were learned from refusals and limits that headers told: the next
    calls start as if nothing was known. Calls in flight and the use of a day are facts and stay. A breaker speaks of a
    model for all accounts, so that it is closed in either case. Raises RedisError, OSError.
    """
    owner = account or provider
    of_scope = {Scope.MODEL: owner, Scope.ACCOUNT: owner, Scope.PROVIDER: provider}
    beginnings = (keys.rate(owner, ""), *(keys.cool(f"{scope}:{whose}:") for scope, whose in of_scope.items()))
    found = [name for name in await limiter_keys(redis) if f"{name}:".startswith(beginnings)]
    return int(await redis.delete(*found)) if found else 0
