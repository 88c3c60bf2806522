"""Room in a worker's memory for answers that are large: until it is there, they wait on disk.

A job holds what its latest answer needs from the moment it is read until the ledger has it, so that a slow ledger, or
one that is away, fills no memory either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from understudy.models.memory_room import Headroom

SMALL_BYTES = 64 * 1024
"""An answer of so much needs no room."""

ROOM_BYTES = 32 * 1024 * 1024
"""Bytes of large answers at the same time, or one answer if that is more. They take about five times the memory."""


class _Place:
    """What a job holds. A second answer of the same job takes the place of the first: neither waits for the other."""

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
    """For what a job is answered in this block, in the tasks that are begun in it as well."""
    place = _Place(room)
    before = _of_this_job.set(place)
    try:
        yield
    finally:
        _of_this_job.reset(before)
        place.leave()


async def room_for(size: int) -> None:
    """Wait for the room that an answer of this job needs. What belongs to no job needs none."""
    place = _of_this_job.get()
    if place is not None:
        await place.take(size)
