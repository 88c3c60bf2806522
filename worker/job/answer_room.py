"""Memory for large answers in a worker: until some is free, they wait on disk.

A job holds memory for its latest answer from reading it until the ledger has it, so that a slow or unavailable ledger
does not fill memory either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from understudy.models.memory_room import Headroom

SMALL_BYTES = 64 * 1024
"""Smaller answers need no reservation."""

ROOM_BYTES = 32 * 1024 * 1024
"""Bytes of large answers at the same time, or a single answer if larger. They take about five times as much memory."""


class _Place:
    """The memory held by a job. A second answer of the same job replaces the first: neither waits for the other."""

    def __init__(self, room: Headroom) -> None:
        self._room = room
        self._size = 0

    async def take(self, size: int) -> None:
        self.leave()
        await self._room.take(size)
        self._size += size

    def leave(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._room.give(size)


_of_this_job: ContextVar[_Place | None] = ContextVar("place", default=None)


@contextmanager
def place_in(room: Headroom) -> Iterator[None]:
    """For the job's answers in this block and in tasks started within it."""
    place = _Place(room)
    before = _of_this_job.set(place)
    try:
        yield
    finally:
        _of_this_job.reset(before)
        place.leave()


async def room_for(size: int) -> None:
    """Wait for the memory that an answer of this job needs. Outside of a job none is needed."""
    place = _of_this_job.get()
    if place is not None:
        await place.take(size)
