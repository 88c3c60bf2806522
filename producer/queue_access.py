"""The queue as commands look into it that only want to know something: for a moment, and without it if need be.

Its client is loaded when there is a queue to ask: it takes a tenth of the time until a command begins.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from understudy.models.config.settings import Settings
from understudy.producer.processes.embedded_address import running_redis

if TYPE_CHECKING:
    from redis.asyncio import Redis

ASK_REDIS_S = 1.0
"""Who only wants to know why a batch waits is not kept by a Redis that hangs."""

T = TypeVar("T")


@asynccontextmanager
async def queue_of(settings: Settings) -> AsyncIterator["Redis | None"]:
    """The queue that workers of these settings use now; None when it is an embedded one and nothing runs."""
    url = settings.redis_url or running_redis(settings.data)
    if url is None:
        yield None
        return
    from redis.asyncio import Redis

    async with Redis.from_url(url, socket_connect_timeout=ASK_REDIS_S, socket_timeout=ASK_REDIS_S) as queue:
        yield queue


async def in_time(answer: Awaitable[T]) -> T | None:
    """What the queue answers; None when it does not, or not soon."""
    from redis.exceptions import RedisError

    try:
        async with asyncio.timeout(ASK_REDIS_S):
            return await answer
    except (RedisError, OSError, TimeoutError):
        return None
