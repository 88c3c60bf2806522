"""Leases of a run: only one process at a time works on an output, and its batches go on only while that process lives.

Both are kept in the ledger, because several machines may share it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from understudy.models.store import Store, StoreError
from understudy.producer.runs.runs import OtherRun, RunRequest

LEASE_S = 15.0
RENEW_S = 3.0
"""Seconds. When the process of a run is killed, other workers on the same ledger continue its batches for at most
LEASE_S; until then, no other process can take over the run."""


@asynccontextmanager
async def exclusive_run(store: Store, asked: RunRequest, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Lock the output from before the input is accepted until the results are written.

    Waits for a process that may have been killed. Raises OtherRun when it is alive: two runs would ask, and pay for,
    the same lines.
    """
    await _take(store, asked, say)
    kept = asyncio.create_task(_keep(store, asked.run_id))
    try:
        yield
    finally:
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)
        with suppress(StoreError):  # the lease then expires by itself
            await store.runs.keep_taken(asked.run_id, 0.0)


async def _take(store: Store, asked: RunRequest, say: Callable[[str], None]) -> None:
    left_s = None
    while not await store.runs.take(asked.run_id, LEASE_S):
        before_s, left_s = left_s, await store.runs.taken_for_s(asked.run_id)
        if before_s is None:
            say(f"waiting for up to {left_s:.0f} s: another run was writing to {asked.output} a moment ago")
        elif left_s > before_s:
            raise OtherRun(f"another `understudy run` is writing to {asked.output}; wait for it or stop it")
        await asyncio.sleep(min(1.0, max(left_s, 0.1)))


async def _keep(store: Store, run_id: str) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        with suppress(StoreError):  # the next renewal may succeed
            await store.runs.keep_taken(run_id, LEASE_S)


class BatchLease:
    """Keeps a run's batches going while this process is alive and not asked to stop."""

    def __init__(self, store: Store, batches: Sequence[str]) -> None:
        self._store = store
        self._batches = batches
        self._renewed_at: float | None = None
        self._stopped = False

    async def __aenter__(self) -> "BatchLease":
        await self.renew()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(StoreError):
            await self.stop()

    async def renew(self) -> None:
        now = time.monotonic()
        if not self._stopped and (self._renewed_at is None or now - self._renewed_at >= RENEW_S):
            await self._store.runs.keep(self._batches, LEASE_S)
            self._renewed_at = now

    async def stop(self) -> None:
        if not self._stopped:
            await self._store.runs.stop(self._batches)
            self._stopped = True
