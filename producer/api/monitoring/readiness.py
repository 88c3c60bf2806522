"""Whether the stores are reachable. Cached, because anyone may ask at any rate."""

import asyncio
import time
from collections.abc import Callable, Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.store import Store, StoreError

KEPT_S = 0.5


class Readiness:
    """Caches the checks for KEPT_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: tuple[float, Mapping[str, str]] | None = None
        self._looking = asyncio.Lock()

    async def checks(self, store: Store, redis: Redis) -> Mapping[str, str]:
        """For each store "ok", or what is wrong with it."""
        async with self._looking:
            if self._found is None or self._clock() >= self._found[0]:
                database, queue = await asyncio.gather(_database(store), _redis(redis))
                self._found = self._clock() + KEPT_S, {"database": database, "redis": queue}
            return self._found[1]


async def _database(store: Store) -> str:
    try:
        return "ok" if await store.schema_is_current() else "the schema is not current; run `understudy migrate`"
    except StoreError as error:
        return str(error)


async def _redis(redis: Redis) -> str:
    try:
        await redis.ping()
    except (RedisError, OSError, TimeoutError):
        return "Redis is unreachable; check REDIS_URL and that it is running"
    return "ok"
