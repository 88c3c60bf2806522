"""Filling: the lines of an uploaded file become the rows of its batch, while the server goes on answering.

Each API process looks for batches that wait for it. One that dies in the middle is followed by another process, which
reads the file from its start and writes what is not written yet. Nothing of a batch starts before all of it is there.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from understudy.models.config.settings import Settings
from understudy.models.logs import about, raised_at
from understudy.models.records import NewJob
from understudy.models.request.wire import LineError
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.route import RouteOptions
from understudy.models.schemas.process import NoJudge
from understudy.models.store import Store, StoreError, StoreFull
from understudy.models.store.disk_space import KEPT_BYTES
from understudy.models.store.ingest import ToFill
from understudy.producer.api.files.blobs import BlobError, NoBlob
from understudy.producer.ingest.batch_lines import BatchReader

log = logging.getLogger(__name__)

SLICE = 500
"""Rows per transaction: more would keep the requests of others waiting for as long as it takes to prepare them."""

LEASE_S = 15.0
LOOK_S = 2.0
AT_ONCE = 3
"""Batches that one process fills at the same time, so that a small one need not wait for a big one."""

READING_FAILED = "input_file_unreadable"

TOO_LATE = LineError(code="batch_expired", message="The input file could not be read before the batch's deadline.")

MOST_TRIES = 2
MOST_UNEXPLAINED_TRIES = 5
"""Of a batch that is begun so often, and of which no row was written since, the process that fills it may be killed."""

STOPPED_US = LineError(
    code="lines_stopped_the_server",
    message="Reading the lines of this batch failed more than once inside the server, so it is not tried again; "
    "the server's log says where. Send the batch in parts to find the line.",
)

NO_ROOM = LineError(
    code="no_room",
    message="The server's disk has no room for the lines of this batch; try it again later, or in parts.",
)

Read = Callable[[str], AsyncIterator[bytes]]


def route_options(words: Mapping[str, Any]) -> RouteOptions:
    """From the words about routing that a batch was accepted with."""
    sets = {word: frozenset(words[word]) for word in ("accept",) if word in words}
    return RouteOptions(**{**words, "fallbacks": tuple(words.get("fallbacks", ())), **sets})


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
        """`read` gives the bytes of a file by its id; raises BlobError. `kept_bytes` of the disk are left to others."""
        self._settings = settings
        self._store = store
        self._read = read
        self._name = name
        self._lease_s = lease_s
        self._kept_bytes = kept_bytes
        self._came = asyncio.Event()

    def wake(self) -> None:
        """A batch was accepted just now."""
        self._came.set()

    async def run(self, look_s: float = LOOK_S) -> None:
        while True:
            try:
                while await self.step():
                    continue
            except (StoreError, BlobError, NoJudge) as error:
                log.warning("batches cannot be filled now: %s", error)
            except Exception as error:
                log.error("filling a batch failed: %s", raised_at(error))
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_s):
                    await self._came.wait()

    async def step(self) -> bool:
        """Fill one batch, or clear up after one. False: there was nothing to do."""
        batch = await self._store.ingest.claim(self._name, self._lease_s)
        if batch is not None:
            with about(batch_id=batch.id):
                await self._try(batch)
            return True
        return await self._store.ingest.clear_never_opened() is not None

    async def release(self) -> None:
        """What is half done is another's at once, not when the lease ends."""
        with contextlib.suppress(StoreError):
            await self._store.ingest.release(self._name)

    async def _try(self, batch: ToFill) -> None:
        """Fill it, or refuse it when it has stopped us before. Else its lease ends by itself, and it is tried again."""
        try:
            if batch.tries > MOST_UNEXPLAINED_TRIES:
                await self._refuse(batch, STOPPED_US)
            elif await self._store.now() >= batch.expires_at:
                await self._refuse(batch, TOO_LATE)
            else:
                await self._fill(batch)
        except (StoreError, BlobError, NoJudge):
            with contextlib.suppress(StoreError):
                await self._store.ingest.forget_try(batch.id, self._name)
            raise
        except Exception as error:
            if batch.tries < MOST_TRIES:
                raise
            log.error("batch %s is refused, filling it failed %d times: %s", batch.id, batch.tries, raised_at(error))
            await self._refuse(batch, STOPPED_US)

    async def _refuse(self, batch: ToFill, why: LineError) -> None:
        await self._store.ingest.fail(batch.id, self._name, [why.model_dump()])

    async def _fill(self, batch: ToFill) -> None:
        reader = BatchReader(
            self._settings,
            cast(Endpoint, batch.endpoint),
            route_options(batch.options),
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
            reader.errors.insert(0, LineError(code=READING_FAILED, message="The input file is not there any more."))
        except StoreFull:  # its rows would keep everybody else's out
            reader.errors.insert(0, NO_ROOM)
        if reader.errors:
            await self._store.ingest.fail(batch.id, self._name, [error.model_dump() for error in reader.errors])
        else:
            await self._store.ingest.open_filled(batch.id, self._name, reader.total, reader.preflight.forecast.estimate)

    async def _write_rows(self, batch: ToFill, reader: BatchReader) -> bool:
        """False: the batch is not ours to fill any more. With errors the rows written so far are left to clear up."""
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
    """Writes the rows of one batch in slices, and keeps its lease while there is nothing to write."""

    def __init__(self, store: Store, batch_id: str, filler: str, lease_s: float, kept_bytes: int) -> None:
        self._store = store
        self._kept_bytes = kept_bytes
        self._asked = (batch_id, filler, lease_s)
        self._renew_s = lease_s / 3
        self._written_at = time.monotonic()
        self.waiting: list[NewJob] = []
        self.mine = True

    async def meanwhile(self, read: Callable[..., list[NewJob]], *arguments: bytes) -> list[NewJob]:
        """What `read` makes of lines, in a thread: the schemas in them may take long."""
        reading = asyncio.create_task(asyncio.to_thread(read, *arguments))
        while not (await asyncio.wait([reading], timeout=self._renew_s))[0]:
            await self.write(leave=len(self.waiting))
        return reading.result()

    async def write(self, leave: int) -> bool:
        """Write until no more than `leave` rows wait. False: the batch is not ours any more."""
        while self.mine and (len(self.waiting) > leave or time.monotonic() - self._written_at > self._renew_s):
            jobs = self.waiting[:SLICE] if len(self.waiting) > leave else []
            self.mine = await self._store.ingest.fill(*self._asked, jobs, self._kept_bytes)
            del self.waiting[: len(jobs)]
            self._written_at = time.monotonic()
        return self.mine


@asynccontextmanager
async def filling(
    settings: Settings, store: Store, read: Read, name: str, kept_bytes: int = KEPT_BYTES
) -> AsyncIterator[Callable[[], None]]:
    """Fill batches as long as this lasts. Gives what to call when one was accepted, so that it is begun at once."""
    names = [f"{name}-{number}" for number in range(AT_ONCE)]
    fillers = [Filler(settings, store, read, each, kept_bytes=kept_bytes) for each in names]

    def wake() -> None:
        for filler in fillers:
            filler.wake()

    tasks = [asyncio.create_task(filler.run(), name="filling") for filler in fillers]
    try:
        yield wake
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for filler in fillers:
            await filler.release()
