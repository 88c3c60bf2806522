"""Batches of the HTTP API: accepted first, filled with the lines of their file afterwards.

Whoever fills a batch holds a lease on it (`filled_by`, `fill_until`) and renews it with each slice that it writes, in
the same transaction. A filler that was away for too long finds another's name there and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Boolean, Row, and_, bindparam, case, exists, func, or_, select, update

from understudy.models.records import Estimate, NewJob
from understudy.models.state import BatchState, Priority
from understudy.models.store.batches.chains import drop_unused_chains
from understudy.models.store.disk_space import KEPT_BYTES, give_room_back
from understudy.models.store.intake import estimated, insert_jobs
from understudy.models.store.ledger import Area
from understudy.models.store.retention.prune import delete_jobs_of, discard_batch
from understudy.models.store.sql import NOW, QUEUED, batch, file, job
from understudy.models.store.webhooks.outbox import ENDED_BATCH, announce_batches

NOTHING_STORED = update(batch).where(batch.c.id == bindparam("of_batch")).values(stored_bytes=0)
"""The rows of a batch that was not accepted are gone."""

VALIDATING = batch.c.state == str(BatchState.VALIDATING)
HAS_FILE = batch.c.input_file_id.is_not(None)

ABANDONED_AFTER_S = 3600.0
"""A submission that writes no row for so long is dead. One that was only held up is told that its batch is gone."""


TO_FILL = (
    select(batch.c.id)
    .where(VALIDATING, HAS_FILE, batch.c.fill_until <= NOW)
    .order_by(batch.c.created_at, batch.c.id)
    .limit(1)
    .with_for_update(skip_locked=True, of=batch)
)
"""The oldest batch that waits to be filled, or whose filler died."""

CLAIM_FILLING = (
    update(batch)
    .where(batch.c.id.in_(TO_FILL))
    .values(filled_by=bindparam("filler"), fill_until=NOW + bindparam("lease_s"), fill_tries=batch.c.fill_tries + 1)
    .returning(batch)
)
"""One filler takes a batch; that is a try."""

_mine = and_(batch.c.id == bindparam("batch_id"), VALIDATING, batch.c.filled_by == bindparam("filler"))

RENEW_FILLING = (
    update(batch)
    .where(_mine)
    .values(
        fill_until=NOW + bindparam("lease_s"),
        fill_tries=case((bindparam("writes", type_=Boolean), 0), else_=batch.c.fill_tries),
    )
    .returning(batch.c.expires_at)
)
"""A filler goes on, unless the batch was cancelled or is another's. With rows that are written its tries begin anew."""

_one_try_less = case((batch.c.fill_tries > 0, batch.c.fill_tries - 1), else_=0)

FORGET_TRY = update(batch).where(_mine).values(fill_tries=_one_try_less)
"""What ended a try says nothing of the batch."""

RELEASE_FILLING = (
    update(batch)
    .where(VALIDATING, batch.c.filled_by == bindparam("filler"))
    .values(fill_until=0.0, fill_tries=_one_try_less)
)
"""A filler that stops leaves its batch to others at once."""

WRITTEN_LINES = select(func.coalesce(func.max(job.c.line), 0)).where(job.c.batch_id == bindparam("batch_id"))
"""Up to which line a batch is filled: slices are written whole and in order."""

OPEN_FILLED = (
    update(batch)
    .where(_mine)
    .values(
        state=str(BatchState.IN_PROGRESS),
        total=bindparam("rows"),
        started_at=NOW,
        estimated_usd=bindparam("estimated_usd"),
        unpriced_lines=bindparam("unpriced_lines"),
    )
    .returning(batch.c.id)
)
"""Its filler accepts a whole batch: from now on its rows may start."""

FAIL_FILLING = (
    update(batch)
    .where(_mine)
    .values(state=str(BatchState.FAILED), error=bindparam("errors"), ended_at=NOW)
    .returning(*ENDED_BATCH)
)
"""The input of a batch is refused."""

CANCEL_FILLING = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), VALIDATING, HAS_FILE)
    .values(state=str(BatchState.CANCELLED), cancelling_at=NOW, ended_at=NOW)
    .returning(*ENDED_BATCH)
)
"""A batch that is still being filled is cancelled at once: none of its lines was accepted."""

_written_at = select(job.c.created_at).where(job.c.batch_id == batch.c.id).order_by(job.c.id.desc()).limit(1)
ABANDON = (
    update(batch)
    .where(
        VALIDATING,
        ~HAS_FILE,
        func.coalesce(_written_at.scalar_subquery(), batch.c.created_at) < NOW - ABANDONED_AFTER_S,
    )
    .values(state=str(BatchState.FAILED), ended_at=NOW)
)
"""End the batches whose submission was killed: nothing was written of them for a long time."""

NEVER_OPENED = (
    select(batch.c.id, batch.c.state, batch.c.input_file_id)
    .where(
        batch.c.state.in_([str(BatchState.FAILED), str(BatchState.CANCELLED)]),
        batch.c.total == 0,
        or_(
            and_(~HAS_FILE, batch.c.state == str(BatchState.FAILED)),
            exists(select(job.c.id).where(QUEUED, job.c.batch_id == batch.c.id)),
        ),
    )
    .limit(1)
)
"""A batch that ended while it was being filled and still has rows, or that nobody else knows of."""

INPUT_LINES = select(file.c.lines).where(file.c.id == bindparam("file_id"), file.c.tenant == bindparam("tenant"))
"""How many lines an uploaded file has."""


@dataclass(frozen=True, slots=True)
class ToFill:
    """A batch whose rows are to be written by who claimed it."""

    id: str
    tenant: str
    priority: Priority
    endpoint: str
    options: dict[str, Any]
    input_file_id: str
    input_lines: int  # as counted at upload
    expires_at: float
    written_lines: int  # up to this line its rows are written
    tries: int  # this one, and those before it that ended without a row of it
    budget_usd: float | None


class Ingest(Area):
    async def claim(self, filler: str, lease_s: float) -> ToFill | None:
        """Take the oldest batch that waits to be filled. None: there is none."""
        async with self._db.write() as connection:
            row = (await connection.execute(CLAIM_FILLING, {"filler": filler, "lease_s": lease_s})).first()
            if row is None:
                return None
            written = (await connection.execute(WRITTEN_LINES, {"batch_id": row.id})).scalar_one()
            asked = {"file_id": row.input_file_id, "tenant": row.tenant}
            lines = (await connection.execute(INPUT_LINES, asked)).scalar() or 0
        return _to_fill(row, lines, written)

    async def fill(
        self, batch_id: str, filler: str, lease_s: float, jobs: Sequence[NewJob], kept_bytes: int = KEPT_BYTES
    ) -> bool:
        """Write up to 2,000 rows and renew the lease. False: the batch was cancelled or is another filler's.

        Raises StoreFull when they would leave less than `kept_bytes` of the disk.
        """
        async with self._db.write() as connection:
            asked = {"batch_id": batch_id, "filler": filler, "lease_s": lease_s, "writes": bool(jobs)}
            expires_at = (await connection.execute(RENEW_FILLING, asked)).scalar()
            if expires_at is None:
                return False
            if jobs:
                await insert_jobs(self._db, connection, batch_id, jobs, expires_at, kept_bytes)
        return True

    async def forget_try(self, batch_id: str, filler: str) -> None:
        """The try that ends now says nothing of the batch."""
        async with self._db.write() as connection:
            await connection.execute(FORGET_TRY, {"batch_id": batch_id, "filler": filler})

    async def release(self, filler: str) -> None:
        """Leave what this filler holds to others."""
        async with self._db.write() as connection:
            await connection.execute(RELEASE_FILLING, {"filler": filler})

    async def open_filled(self, batch_id: str, filler: str, total: int, estimate: Estimate | None = None) -> bool:
        """Accept all rows of a batch, with what they are expected to cost. False: it was cancelled or is another
        filler's."""
        async with self._db.write() as connection:
            asked = {"batch_id": batch_id, "filler": filler, "rows": total, **estimated(estimate)}
            return (await connection.execute(OPEN_FILLED, asked)).first() is not None

    async def fail(self, batch_id: str, filler: str, errors: Sequence[dict[str, Any]]) -> bool:
        """Refuse the input of a batch. False: it was cancelled or is another filler's. Its rows stay for `clear`."""
        asked = {"batch_id": batch_id, "filler": filler, "errors": orjson.dumps(errors).decode()}
        async with self._db.write() as connection:
            ended = (await connection.execute(FAIL_FILLING, asked)).all()
            await announce_batches(connection, ended)
        return bool(ended)

    async def cancel(self, batch_id: str) -> bool:
        """Cancel a batch none of whose lines was accepted yet. False: it is not being filled from a file."""
        async with self._db.write() as connection:
            ended = (await connection.execute(CANCEL_FILLING, {"batch_id": batch_id})).all()
            await announce_batches(connection, ended)
        return bool(ended)

    async def clear_never_opened(self) -> str | None:
        """Delete the rows of one batch that ended while it was being filled, in slices; returns its id.

        Of one that was refused, and whose input is not here, nothing is kept: its submitter was told.
        """
        async with self._db.write() as connection:
            await connection.execute(ABANDON)
        async with self._db.read() as connection:
            found = (await connection.execute(NEVER_OPENED)).first()
        if found is None:
            return None
        if found.input_file_id is None and found.state == BatchState.FAILED:
            await discard_batch(self._db, found.id)
        else:
            await delete_jobs_of(self._db, found.id)
            async with self._db.write() as connection:
                await connection.execute(NOTHING_STORED, {"of_batch": found.id})
            await give_room_back(self._db)
        await self._drop_unused_chains()
        return str(found.id)

    async def _drop_unused_chains(self) -> None:
        """Each line of what was refused may have had one of its own."""
        looked_at = True
        while looked_at:
            async with self._db.write() as connection:
                looked_at = bool(await drop_unused_chains(connection))


def _to_fill(row: Row[Any], lines: int, written: int) -> ToFill:
    return ToFill(
        id=row.id,
        tenant=row.tenant,
        priority=Priority(row.priority),
        endpoint=row.endpoint,
        options=orjson.loads(row.options or "{}"),
        input_file_id=row.input_file_id,
        input_lines=lines,
        expires_at=row.expires_at,
        written_lines=written,
        tries=row.fill_tries,
        budget_usd=row.budget_usd,
    )
