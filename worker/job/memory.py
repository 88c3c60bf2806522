"""Memory for large prompts and answers in a worker.

A job whose large prompt finds no memory is put back and holds no slot. Answers wait on disk until some is free: a job
holds memory for its latest answer from reading it until the ledger has it, so that a slow or unavailable ledger does
not fill memory either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from understudy.models.jobs.execution import StartedJob
from understudy.models.jobs.wait_reasons import put_back_for
from understudy.models.memory_room import Headroom

PROMPT_BYTES: Final = 128 * 1024 * 1024
"""Bytes of large prompts in use at the same time. They take about five times as much memory."""

TENANT_PROMPT_BYTES: Final = PROMPT_BYTES * 3 // 4
"""The maximum for one tenant. One large prompt of each tenant always fits, so none waits for others."""

LOOK_AGAIN_S: Final = 2.0
WAITS_FOR_ROOM: Final = put_back_for("large prompts take turns in a worker")

SMALL_BYTES = 64 * 1024
"""Smaller answers need no reservation."""

ANSWER_BYTES = 32 * 1024 * 1024
"""Bytes of large answers at the same time, or a single answer if larger. They take about five times as much memory."""


class PromptRoom:
    def __init__(self) -> None:
        self._held: dict[str, tuple[str, int]] = {}

    def take(self, job: StartedJob) -> bool:
        """Whether the prompt of a job may be read now. Small ones need no reservation."""
        if not job.large_bytes:
            return True
        of_all = sum(size for _, size in self._held.values())
        of_tenant = sum(size for tenant, size in self._held.values() if tenant == job.tenant)
        fits = of_tenant + job.large_bytes <= TENANT_PROMPT_BYTES and of_all + job.large_bytes <= PROMPT_BYTES
        if of_tenant and not fits:
            return False
        self._held[job.id] = (job.tenant, job.large_bytes)
        return True

    def leave(self, job_id: str) -> None:
        self._held.pop(job_id, None)


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
