"""Where the queue is, and brief read access to it for commands that can do without it.

The Redis client is imported only when there is a queue, because it takes a tenth of a command's start-up time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from understudy.models.config.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

ASK_REDIS_S = 1.0
"""Seconds. A command that only shows a wait reason is not blocked by a hanging Redis."""

T = TypeVar("T")


@asynccontextmanager
async def queue_of(settings: Settings) -> AsyncIterator["Redis | None"]:
    """The queue that workers with these settings use; None for an embedded queue that is not running."""
    url = queue_url(settings)
    if url is None:
        yield None
        return
    from redis.asyncio import Redis

    async with Redis.from_url(url, socket_connect_timeout=ASK_REDIS_S, socket_timeout=ASK_REDIS_S) as queue:
        yield queue


async def in_time(answer: Awaitable[T]) -> T | None:
    """The answer of the queue; None on an error or timeout."""
    from redis.exceptions import RedisError

    try:
        async with asyncio.timeout(ASK_REDIS_S):
            return await answer
    except (RedisError, OSError, TimeoutError):
        return None


RUNTIME_NAME = "redis.runtime"
"""File with the path of the socket folder, so that the next start can remove a leftover."""

RUNTIME_PREFIX = "us-"
SOCKET_NAME = "redis.sock"


def queue_url(settings: Settings) -> str | None:
    """None: an embedded queue that is not running."""
    return settings.redis_url or running_redis(settings.data)


def running_redis(data: Path) -> str | None:
    """The URL of the embedded server that is running for this folder; None: none is running."""
    try:
        runtime = Path((data / RUNTIME_NAME).read_text())
    except OSError:
        return None
    socket = runtime / SOCKET_NAME
    return url_of(socket) if runtime.name.startswith(RUNTIME_PREFIX) and socket.is_socket() else None


def url_of(socket: Path) -> str:
    return f"unix://{socket}?db=0"
