"""State changes without a worker: cancelled, expired and completed batches, in slices."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Row,
    Select,
    Update,
    bindparam,
    case,
    exists,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.state import BatchState, JobState
from understudy.models.store.batches.views import ERRORS, OUTPUT
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, QUEUED, RUNNING, BulkInsert, batch, file, job, tally
from understudy.models.store.tallies import OF_JOBS, Tallies
from understudy.models.store.webhooks.outbox import ENDED_BATCH, ENDED_JOB, announce_batches, announce_jobs

SLICE = 2_000
WRITER = "upkeep"

ENDS = {
    BatchState.IN_PROGRESS: BatchState.COMPLETED,
    BatchState.CANCELLING: BatchState.CANCELLED,
    BatchState.EXPIRING: BatchState.EXPIRED,
}
"""The final state of a batch without open jobs."""

CLOSE_BATCHES = (
    update(batch)
    .where(
        batch.c.state.in_([str(state) for state in ENDS]),
        ~exists(select(job.c.id).where(QUEUED, job.c.batch_id == batch.c.id)),
        ~exists(select(job.c.id).where(RUNNING, job.c.batch_id == batch.c.id)),
    )
    .values(
        state=case({str(state): str(end) for state, end in ENDS.items()}, value=batch.c.state),
        ended_at=NOW,
    )
    .returning(*ENDED_BATCH, batch.c.output_expires_s)
)
"""End batches without queued or running jobs."""

OUTCOMES_OF_BATCHES = (
    select(tally.c.batch_id, tally.c.outcome)
    .where(tally.c.batch_id.in_(bindparam("ids", expanding=True)), tally.c.kind == OF_JOBS)
    .distinct()
)
"""Jobs of some batches by final state."""

INSERT_FILES = BulkInsert(file, conflict="ignored")
"""The output and error files of batches that have ended."""


def _end_slice(chosen: Select[tuple[str]], state: JobState) -> Update:
    ids = chosen.limit(bindparam("most")).with_for_update(skip_locked=True, of=job)
    return (
        update(job)
        .where(job.c.id.in_(ids))
        .values(state=str(state), ended_at=NOW, worker_id=None)
        .returning(*ENDED_JOB)
    )


def _queued_in(state: BatchState) -> Select[tuple[str]]:
    batches = select(batch.c.id).where(batch.c.state == str(state))
    return select(job.c.id).where(QUEUED, job.c.batch_id.in_(batches))


CANCEL_SLICE = _end_slice(_queued_in(BatchState.CANCELLING), JobState.CANCELLED)
"""Cancel some queued jobs of batches that are being cancelled."""

EXPIRE_BATCHES = (
    update(batch)
    .where(batch.c.state == str(BatchState.IN_PROGRESS), batch.c.expires_at <= NOW)
    .values(state=str(BatchState.EXPIRING))
)
"""Stop starting jobs of batches past their deadline."""

_validating = select(batch.c.id).where(batch.c.state == str(BatchState.VALIDATING))

EXPIRE_SLICES = (
    _end_slice(_queued_in(BatchState.EXPIRING), JobState.EXPIRED),
    _end_slice(
        select(job.c.id).where(QUEUED, job.c.expires_at <= NOW, job.c.batch_id.not_in(_validating)), JobState.EXPIRED
    ),
)
"""Expire some queued jobs past their own or their batch's deadline."""

CANCEL_BATCH = (
    update(batch)
    .where(
        batch.c.id == bindparam("batch_id"),
        batch.c.state.in_([str(BatchState.VALIDATING), str(BatchState.IN_PROGRESS)]),
    )
    .values(state=str(BatchState.CANCELLING), cancelling_at=NOW)
    .returning(batch.c.id)
)
"""Stop starting jobs of a batch, and ask for those in flight to be stopped."""


class Lifecycle(Area):
    async def close_finished(self) -> list[str]:
        """End the batches without open jobs; returns their ids."""
        async with self._db.write() as connection:
            closed = (await connection.execute(CLOSE_BATCHES)).all()
            ids = [each.id for each in closed]
            if ids:
                await self._add_files(connection, closed)
                await announce_batches(connection, closed)
        return ids

    async def cancel_slice(self, limit: int = SLICE) -> int:
        """Cancel up to `limit` queued jobs of batches being cancelled; returns 0 when none is left."""
        return len(await self._end_slices([CANCEL_SLICE], limit))

    async def expire_slice(self, limit: int = SLICE) -> list[str]:
        """Expire up to `limit` queued jobs past their deadline; returns their ids, empty when none is left."""
        async with self._db.write() as connection:
            await connection.execute(EXPIRE_BATCHES)
        return await self._end_slices(EXPIRE_SLICES, limit)

    async def cancel(self, batch_id: str) -> bool:
        """Start cancelling a batch; False if it has ended, is ending, or does not exist."""
        async with self._db.write() as connection:
            return (await connection.execute(CANCEL_BATCH, {"batch_id": batch_id})).first() is not None

    async def _add_files(self, connection: AsyncConnection, closed: Sequence[Row[Any]]) -> None:
        """A batch's results can be listed and deleted like other files, but their lines are read from the result
        rows."""
        outcomes = await connection.execute(OUTCOMES_OF_BATCHES, {"ids": [each.id for each in closed]})
        parts = {(row.batch_id, OUTPUT if row.outcome == JobState.SUCCEEDED else ERRORS) for row in outcomes}
        rows = [_file_row(each, part) for each in closed for part in (OUTPUT, ERRORS) if (each.id, part) in parts]
        await INSERT_FILES.run(connection, rows)

    async def _end_slices(self, statements: Sequence[Update], limit: int) -> list[str]:
        ended: list[str] = []
        tallies = Tallies(WRITER)
        async with self._db.write() as connection:
            for statement in statements:
                rows = (await connection.execute(statement, {"most": limit - len(ended)})).all()
                tallies.jobs_ended(rows)
                await announce_jobs(connection, rows)
                ended += [row.id for row in rows]
            await tallies.write(connection)
        return ended


def _file_row(closed: Row[Any], part: str) -> dict[str, Any]:
    lives_s = closed.output_expires_s
    return {
        "id": f"file_{closed.id}_{part}",
        "tenant": closed.tenant,
        "purpose": "batch_output",
        "filename": f"{closed.id}_{part}.jsonl",
        "bytes": None,
        "lines": 0,
        "batch_id": closed.id,
        "part": part,
        "created_at": closed.ended_at,
        "expires_at": None if lives_s is None else closed.ended_at + lives_s,
    }
