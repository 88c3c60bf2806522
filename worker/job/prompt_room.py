"""Memory for large prompts in a worker. A job that gets none is put back and holds no slot."""

from typing import Final

from understudy.models.jobs.wait_reasons import put_back_for
from understudy.models.records import StartedJob

ROOM_BYTES: Final = 128 * 1024 * 1024
"""Bytes of large prompts in use at the same time. They take about five times as much memory."""

TENANT_BYTES: Final = ROOM_BYTES * 3 // 4
"""The maximum for one tenant. One large prompt of each tenant always fits, so none waits for others."""

LOOK_AGAIN_S: Final = 2.0
WAITS_FOR_ROOM: Final = put_back_for("large prompts take turns in a worker")


class PromptRoom:
    def __init__(self) -> None:
        self._held: dict[str, tuple[str, int]] = {}

    def take(self, job: StartedJob) -> bool:
        """Whether the prompt of a job may be read now. Small ones need no reservation."""
        if not job.large_bytes:
            return True
        of_all = sum(size for _, size in self._held.values())
        of_tenant = sum(size for tenant, size in self._held.values() if tenant == job.tenant)
        fits = of_tenant + job.large_bytes <= TENANT_BYTES and of_all + job.large_bytes <= ROOM_BYTES
        if of_tenant and not fits:
            return False
        self._held[job.id] = (job.tenant, job.large_bytes)
        return True

    def leave(self, job_id: str) -> None:
        self._held.pop(job_id, None)
