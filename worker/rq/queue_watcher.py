"""Block until a Redis list is non-empty, without popping."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from redis.asyncio import Redis

from understudy.models.cancellation import end

LISTEN_S = 3
"""Seconds that one blocking command waits. Must be below the socket timeout of the connection."""


class QueueWatcher:
    """Listens to lists, with one connection for each from the first wait until the end of the context.

    The listeners outlive a wait: a connection that is closed while it blocks costs a new one for the next wait, which
    is more than the wait itself.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._listeners: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await end(self._listeners.values())
        await asyncio.gather(*self._listeners.values(), return_exceptions=True)
        self._listeners.clear()

    async def wait(self, timeout_s: float, keys: Sequence[str]) -> None:
        """Return when a list has an element, or had one since the last wait for it, or after `timeout_s`.

        Raises redis.exceptions.RedisError if Redis cannot be reached.
        """
        for key in keys:
            if key not in self._listeners:
                self._listeners[key] = asyncio.create_task(self._listen(key), name=f"listen to {key}")
        listeners = {key: self._listeners[key] for key in keys}
        await asyncio.wait(listeners.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        heard = {key: listener for key, listener in listeners.items() if listener.done()}
        for key in heard:
            del self._listeners[key]
        await asyncio.gather(*heard.values())

    async def _listen(self, key: str) -> None:
        # Moving the head of a list onto itself waits for an element and takes none.
        async with self._redis.client() as connection:
            while await connection.blmove(key, key, LISTEN_S, "LEFT", "LEFT") is None:
                pass
