"""A readers-writer lock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RWLock:
    def __init__(self) -> None:
        self._inside = 0
        self._one = asyncio.Lock()
        self._empty = _event_that_is_set()
        self._open = _event_that_is_set()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        while not self._open.is_set():  # it may have been closed again before this task woke up
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Waits for those inside; newcomers wait."""
        async with self._one:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()


def _event_that_is_set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
