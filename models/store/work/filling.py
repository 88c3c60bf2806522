"""Batches of the HTTP API: accepted first, filled with the lines of their file afterwards.

The filler of a batch holds a lease on it (`filled_by`, `fill_until`) and renews it with each slice it writes, in the
same transaction. A filler whose lease has been taken over writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Boolean, Row, and_, bindparam, case, exists, func, or_, select, update

from understudy.models.jobs.submission import Estimate, NewJob
from understudy.models.state import BatchState, Priority
from understudy.models.store.chains import drop_unused_chains
from understudy.models.store.database.disk_space import KEPT_BYTES, give_room_back
from understudy.models.store.ledger import Area
from understudy.models.store.outbox import ENDED_BATCH, announce_batches
from understudy.models.store.sql import NOW, QUEUED, batch, file, job, shared_names
from understudy.models.store.work.discarding import delete_jobs_of, discard_batch
from understudy.models.store.work.intake import estimated, insert_jobs

NOTHING_STORED = update(batch).where(batch.c.id == bindparam("of_batch")).values(stored_bytes=0)
"""The rows of a rejected batch were deleted."""

VALIDATING = batch.c.state == str(BatchState.VALIDATING)

HAS_FILE = batch.c.input_file_id.is_not(None)

ABANDONED_AFTER_S = 3600.0
"""A submission that writes no row for this long is dead. If it was only delayed, it learns that its batch is gone."""

TO_FILL = (
    select(batch.c.id)
    .where(VALIDATING, HAS_FILE, batch.c.fill_until <= NOW)
    .order_by(batch.c.created_at, batch.c.id)
    .limit(1)
    .with_for_update(skip_locked=True, of=batch)
)
"""The oldest batch that waits for a filler, or whose filler died."""

CLAIM_FILLING = (
    update(batch)
    .where(batch.c.id.in_(TO_FILL))
    .values(filled_by=bindparam("filler"), fill_until=NOW + bindparam("lease_s"), fill_tries=batch.c.fill_tries + 1)
    .returning(batch)
)
"""A filler claims a batch; this counts as an attempt."""

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
"""Renew a filler's lease, unless the batch was cancelled or taken over. Written rows reset the attempts."""

_one_try_less = case((batch.c.fill_tries > 0, batch.c.fill_tries - 1), else_=0)

FORGET_TRY = update(batch).where(_mine).values(fill_tries=_one_try_less)
"""The attempt failed for a reason unrelated to the batch; do not count it."""

RELEASE_FILLING = (
    update(batch)
    .where(VALIDATING, batch.c.filled_by == bindparam("filler"))
    .values(fill_until=0.0, fill_tries=_one_try_less)
)
"""A stopping filler releases its batch at once."""

WRITTEN_LINES = select(func.coalesce(func.max(job.c.line), 0)).where(job.c.batch_id == bindparam("batch_id"))
"""The line up to which a batch is filled: slices are written completely and in order."""

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
"""The filler accepts the whole batch: its rows may now start."""

FAIL_FILLING = (
    update(batch)
    .where(_mine)
    .values(state=str(BatchState.FAILED), error=bindparam("errors"), ended_at=NOW)
    .returning(*ENDED_BATCH)
)
"""Reject the input of a batch."""

CANCEL_FILLING = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), VALIDATING, HAS_FILE)
    .values(state=str(BatchState.CANCELLED), cancelling_at=NOW, ended_at=NOW)
    .returning(*ENDED_BATCH)
)
"""Cancel a batch while it is being filled: none of its lines was accepted."""

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
"""End batches whose submission was killed: no rows were written for a long time."""

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
"""A batch that ended while being filled and still has rows, or that is referenced nowhere else."""

INPUT_LINES = select(file.c.lines).where(file.c.id == bindparam("file_id"), file.c.tenant == bindparam("tenant"))
"""The number of lines of an uploaded file."""


@dataclass(frozen=True, slots=True)
class ToFill:
    """A claimed batch whose rows are to be written."""

    id: str
    tenant: str
    priority: Priority
    endpoint: str
    options: dict[str, Any]
    input_file_id: str
    input_lines: int  # as counted at upload
    expires_at: float
    written_lines: int  # rows are written up to this line
    tries: int  # including this one, the attempts that ended without writing a row
    budget_usd: float | None


class Filling(Area):
    async def claim(self, filler: str, lease_s: float) -> ToFill | None:
        """Claim the oldest batch that waits to be filled. None: there is none."""
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
        """Write up to 2,000 rows and renew the lease. False: the batch was cancelled or taken over by another filler.

        Raises StoreFull if the rows would leave less than `kept_bytes` of the disk.
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
        """Do not count an attempt that failed for a reason unrelated to the batch."""
        await self._db.change(FORGET_TRY, {"batch_id": batch_id, "filler": filler})

    async def release(self, filler: str) -> None:
        """Release what this filler holds."""
        await self._db.change(RELEASE_FILLING, {"filler": filler})

    async def open_filled(self, batch_id: str, filler: str, total: int, estimate: Estimate | None = None) -> bool:
        """Accept all rows of a batch, with their estimated cost. False: it was cancelled or taken over by another
        filler."""
        asked = {"batch_id": batch_id, "filler": filler, "rows": total, **estimated(estimate)}
        return await self._db.change(OPEN_FILLED, asked) > 0

    async def fail(self, batch_id: str, filler: str, errors: Sequence[dict[str, Any]]) -> bool:
        """Reject the input of a batch. False: it was cancelled or taken over by another filler. `clear_never_opened`
        deletes its rows."""
        asked = {"batch_id": batch_id, "filler": filler, "errors": orjson.dumps(errors).decode()}
        async with self._db.write() as connection:
            ended = (await connection.execute(FAIL_FILLING, asked)).all()
            await announce_batches(connection, ended)
        return bool(ended)

    async def cancel(self, batch_id: str) -> bool:
        """Cancel a batch of which no line was accepted yet. False: it is not being filled from a file."""
        async with self._db.write() as connection:
            ended = (await connection.execute(CANCEL_FILLING, {"batch_id": batch_id})).all()
            await announce_batches(connection, ended)
        return bool(ended)

    async def clear_never_opened(self) -> str | None:
        """Delete the rows of one batch that ended while being filled, in slices; returns its id.

        A rejected batch whose input came with the request is deleted entirely: its submitter received the error.
        """
        await self._db.change(ABANDON)
        found = await self._db.row(NEVER_OPENED)
        if found is None:
            return None
        if found.input_file_id is None and found.state == BatchState.FAILED:
            await discard_batch(self._db, found.id)
        else:
            await delete_jobs_of(self._db, found.id)
            await self._db.change(NOTHING_STORED, {"of_batch": found.id})
            await give_room_back(self._db)
        await self._drop_unused_chains()
        return str(found.id)

    async def _drop_unused_chains(self) -> None:
        """Each rejected line may have had a chain of its own."""
        looked_at = True
        while looked_at:
            async with self._db.write() as connection:
                looked_at = bool(await drop_unused_chains(connection))


def _to_fill(row: Row[Any], lines: int, written: int) -> ToFill:
    columns = {name: row._mapping[name] for name in shared_names(ToFill, batch)}
    given = {"priority": Priority(row.priority), "options": orjson.loads(row.options or "{}")}
    return ToFill(**columns | given, input_lines=lines, written_lines=written, tries=row.fill_tries)
