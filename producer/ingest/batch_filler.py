"""Filling: the lines of an uploaded file become the rows of its batch in the background.

Each API process looks for batches to fill. If it dies halfway, another process reads the file from the start and writes
the missing rows. No job of a batch starts before all its rows are written.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from understudy.models.cancellation import running
from understudy.models.config.settings import Settings
from understudy.models.errors import OutOfReach
from understudy.models.jobs.submission import NewJob
from understudy.models.logs import about, raised_at
from understudy.models.request.wire import LineError
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.request_options import RouteOptions
from understudy.models.store import Store, StoreError, StoreFull
from understudy.models.store.database.disk_space import KEPT_BYTES
from understudy.models.store.work.filling import ToFill
from understudy.producer.api.files.blobs import NoBlob
from understudy.producer.ingest.batch_lines import BatchReader

log = logging.getLogger(__name__)

SLICE = 500
"""Rows per transaction: preparing more would delay other requests."""

LEASE_S = 15.0
LOOK_S = 2.0
AT_ONCE = 3
"""Batches that one process fills concurrently, so that a small one need not wait for a big one."""

READING_FAILED = "input_file_unreadable"

TOO_LATE = LineError(code="batch_expired", message="The input file could not be read before the batch's deadline.")

MOST_TRIES = 2
MOST_UNEXPLAINED_TRIES = 5
"""Attempts without a single new row after which a batch is suspected of killing the process that fills it."""

STOPPED_US = LineError(
    code="lines_stopped_the_server",
    message="Reading the lines of this batch repeatedly caused an internal server error, so it is not retried; "
    "see the server's log. Submit the batch in parts to find the line.",
)

NO_ROOM = LineError(
    code="no_room",
    message="The server's disk has no room for the lines of this batch; try again later, or submit it in parts.",
)

Read = Callable[[str], AsyncIterator[bytes]]


class Filler:
    """Fills batches until it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        read: Read,
        name: str,
        lease_s: float = LEASE_S,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """`read` streams the bytes of a file by id. It raises NoBlob, StorageDown.

        `kept_bytes` of the disk stay free.
        """
        self._settings = settings
        self._store = store
        self._read = read
        self._name = name
        self._lease_s = lease_s
        self._kept_bytes = kept_bytes
        self._came = asyncio.Event()

    def wake(self) -> None:
        """Look for a batch that was just accepted."""
        self._came.set()

    async def run(self, look_s: float = LOOK_S) -> None:
        while True:
            try:
                while await self.step():
                    continue
            except OutOfReach as error:
                log.warning("cannot fill batches at the moment: %s", error)
            except Exception as error:
                log.error("filling a batch failed: %s", raised_at(error))
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_s):
                    await self._came.wait()

    async def step(self) -> bool:
        """Fill one batch, or clean up after one. False: there was nothing to do."""
        batch = await self._store.filling.claim(self._name, self._lease_s)
        if batch is not None:
            with about(batch_id=batch.id):
                await self._try(batch)
            return True
        return await self._store.filling.clear_never_opened() is not None

    async def release(self) -> None:
        """Release unfinished batches at once instead of when their leases expire."""
        with contextlib.suppress(StoreError):
            await self._store.filling.release(self._name)

    async def _try(self, batch: ToFill) -> None:
        """Fill it, or fail it after repeated attempts. Otherwise its lease expires, and it is retried."""
        try:
            if batch.tries > MOST_UNEXPLAINED_TRIES:
                await self._refuse(batch, STOPPED_US)
            elif await self._store.now() >= batch.expires_at:
                await self._refuse(batch, TOO_LATE)
            else:
                await self._fill(batch)
        except OutOfReach:
            with contextlib.suppress(StoreError):
                await self._store.filling.forget_try(batch.id, self._name)
            raise
        except Exception as error:
            if batch.tries < MOST_TRIES:
                raise
            log.error("batch %s fails: filling it failed %d times: %s", batch.id, batch.tries, raised_at(error))
            await self._refuse(batch, STOPPED_US)

    async def _refuse(self, batch: ToFill, why: LineError) -> None:
        await self._store.filling.fail(batch.id, self._name, [why.model_dump()])

    async def _fill(self, batch: ToFill) -> None:
        reader = BatchReader(
            self._settings,
            cast(Endpoint, batch.endpoint),
            RouteOptions.of(batch.options),
            priority=batch.priority,
            tenant=batch.tenant,
            rules=(await self._store.tenants.rules(batch.tenant)).with_budget(batch.budget_usd),
            expected_lines=batch.input_lines,
            written_lines=batch.written_lines,
        )
        try:
            if not await self._write_rows(batch, reader):
                return
        except NoBlob:
            reader.errors.insert(0, LineError(code=READING_FAILED, message="The input file no longer exists."))
        except StoreFull:  # its rows would use up the room of other tenants
            reader.errors.insert(0, NO_ROOM)
        if reader.errors:
            await self._store.filling.fail(batch.id, self._name, [error.model_dump() for error in reader.errors])
        else:
            await self._store.filling.open_filled(
                batch.id, self._name, reader.total, reader.preflight.forecast.estimate
            )

    async def _write_rows(self, batch: ToFill, reader: BatchReader) -> bool:
        """False: another process fills the batch now. With errors, the rows written so far are left for cleanup."""
        pen = _Pen(self._store, batch.id, self._name, self._lease_s, self._kept_bytes)
        async for chunk in self._read(batch.input_file_id):
            pen.waiting += await pen.meanwhile(reader.read, chunk)
            if reader.errors:
                pen.waiting.clear()
            if reader.full or not await pen.write(leave=SLICE - 1):
                break
        pen.waiting += await pen.meanwhile(reader.finish)
        return pen.mine and (bool(reader.errors) or await pen.write(leave=0))


class _Pen:
    """Writes the rows of one batch in slices, and renews its lease while there is nothing to write."""

    def __init__(self, store: Store, batch_id: str, filler: str, lease_s: float, kept_bytes: int) -> None:
        self._store = store
        self._kept_bytes = kept_bytes
        self._asked = (batch_id, filler, lease_s)
        self._renew_s = lease_s / 3
        self._written_at = time.monotonic()
        self.waiting: list[NewJob] = []
        self.mine = True

    async def meanwhile(self, read: Callable[..., list[NewJob]], *arguments: bytes) -> list[NewJob]:
        """Run `read` in a thread: checking the schemas in the lines may take long."""
        reading = asyncio.create_task(asyncio.to_thread(read, *arguments))
        while not (await asyncio.wait([reading], timeout=self._renew_s))[0]:
            await self.write(leave=len(self.waiting))
        return reading.result()

    async def write(self, leave: int) -> bool:
        """Write until at most `leave` rows wait. False: another process fills the batch now."""
        while self.mine and (len(self.waiting) > leave or time.monotonic() - self._written_at > self._renew_s):
            jobs = self.waiting[:SLICE] if len(self.waiting) > leave else []
            self.mine = await self._store.filling.fill(*self._asked, jobs, self._kept_bytes)
            del self.waiting[: len(jobs)]
            self._written_at = time.monotonic()
        return self.mine


@asynccontextmanager
async def filling(
    settings: Settings, store: Store, read: Read, name: str, kept_bytes: int = KEPT_BYTES
) -> AsyncIterator[Callable[[], None]]:
    """Fill batches while the block runs. Yields a function to call when a batch was accepted, to start it at once."""
    names = [f"{name}-{number}" for number in range(AT_ONCE)]
    fillers = [Filler(settings, store, read, each, kept_bytes=kept_bytes) for each in names]

    def wake() -> None:
        for filler in fillers:
            filler.wake()

    try:
        async with running(*(filler.run() for filler in fillers), name="filling"):
            yield wake
    finally:
        for filler in fillers:
            await filler.release()
