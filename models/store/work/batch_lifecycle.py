"""Batches paused, resumed, cancelled, expired and ended; each change is announced in its transaction.

A batch is *paused* when someone paused it, its jobs all failed alike, or its budget is spent: `resume` continues it. It
is *blocked* when it needs a person to act elsewhere (a key, a data rule, a budget of a tenant or provider): afterwards
it continues by itself.
"""

from collections.abc import Mapping, Sequence
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

from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.views import ERRORS, OUTPUT
from understudy.models.state import OPEN_BATCH_STATES, BatchState, JobState
from understudy.models.store.ledger import Area
from understudy.models.store.outbox import (
    ENDED_BATCH,
    ENDED_JOB,
    HELD_BATCH,
    announce_batches,
    announce_held,
    announce_jobs,
    announce_resumed,
)
from understudy.models.store.sql import GOES_ON, NOW, QUEUED, RUNNING, SLICE, BulkInsert, batch, clean, file, job, tally
from understudy.models.store.tallies import OF_JOBS, UPKEEP, Tallies

_open = batch.c.state.in_([str(state) for state in OPEN_BATCH_STATES])
_is_blocked = (batch.c.blocked.is_not(None), GOES_ON)

HOLD_BATCH = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), _open)
    .values(paused=bindparam("reason"), pause_kind=str(PauseKind.OWNER))
)
"""Pause a batch, or change the reason of its pause."""

FIRST_HOLD = (
    HOLD_BATCH.where(batch.c.paused.is_(None))
    .values(paused_at=NOW)
    .returning(*HELD_BATCH, batch.c.paused.label("reason"))
)
"""Pause a batch that was not paused."""

RESUME_BATCH = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), _open)
    .values(paused=None, pause_kind=None, canary_passed=True, runs_until=None)
    .returning(batch.c.id)
)
"""Resume a batch and mark its canary as passed: its owner knows how its first jobs ended. A batch of a `run` no
longer depends on its process."""

RESUME_HELD = (
    RESUME_BATCH.where(batch.c.paused.is_not(None)).values(blocked=None, resumed_at=NOW).returning(*HELD_BATCH)
)
"""Resume a paused batch. If it is also still blocked, that is announced again."""

BLOCK_BATCH = update(batch).where(batch.c.id == bindparam("batch_id"), GOES_ON).values(blocked=bindparam("reason"))
"""Mark a batch as blocked, with the reason."""

FIRST_BLOCK = BLOCK_BATCH.where(batch.c.blocked.is_(None)).returning(*HELD_BATCH, batch.c.blocked.label("reason"))
"""Mark a batch as blocked that was not."""

UNBLOCK_BATCHES = (
    update(batch)
    .where(batch.c.id.in_(bindparam("ids", expanding=True)), *_is_blocked)
    .values(blocked=None)
    .returning(*HELD_BATCH)
)
"""Mark some batches as no longer blocked."""

BLOCKED = select(batch.c.id, batch.c.blocked).where(*_is_blocked)
"""Blocked batches with their reasons."""

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


class BatchLifecycle(Area):
    async def pause(self, batch_id: str, reason: str) -> bool:
        """Pause a batch: its jobs no longer start, running ones finish. False if it has ended or does not exist."""
        asked = {"batch_id": batch_id, "reason": clean(reason)}
        async with self._db.write() as connection:
            held = (await connection.execute(FIRST_HOLD, asked)).all()
            await announce_held(connection, held)
            return bool(held) or (await connection.execute(HOLD_BATCH, asked)).rowcount > 0

    async def resume(self, batch_id: str) -> bool:
        """Resume a paused batch. False if it has ended or does not exist."""
        asked = {"batch_id": batch_id}
        async with self._db.write() as connection:
            resumed = (await connection.execute(RESUME_HELD, asked)).all()
            await announce_resumed(connection, resumed)
            return bool(resumed) or (await connection.execute(RESUME_BATCH, asked)).first() is not None

    async def block(self, reasons: Mapping[str, str]) -> None:
        """Mark batches as blocked, with their reasons."""
        async with self._db.write() as connection:
            for batch_id, reason in sorted(reasons.items()):
                asked = {"batch_id": batch_id, "reason": clean(reason)}
                blocked = (await connection.execute(FIRST_BLOCK, asked)).all()
                await announce_held(connection, blocked)
                if not blocked:
                    await connection.execute(BLOCK_BATCH, asked)

    async def unblock(self, ids: Sequence[str]) -> None:
        """Mark these batches as no longer blocked."""
        async with self._db.write() as connection:
            await announce_resumed(connection, (await connection.execute(UNBLOCK_BATCHES, {"ids": list(ids)})).all())

    async def blocked(self) -> dict[str, str]:
        """Blocked batches with their reasons."""
        return {row.id: row.blocked for row in await self._db.rows(BLOCKED)}

    async def cancel(self, batch_id: str) -> bool:
        """Start cancelling a batch; False if it has ended, is ending, or does not exist."""
        return await self._db.change(CANCEL_BATCH, {"batch_id": batch_id}) > 0

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
        await self._db.change(EXPIRE_BATCHES)
        return await self._end_slices(EXPIRE_SLICES, limit)

    async def _add_files(self, connection: AsyncConnection, closed: Sequence[Row[Any]]) -> None:
        """A batch's results can be listed and deleted like other files, but their lines are read from the result
        rows."""
        outcomes = await connection.execute(OUTCOMES_OF_BATCHES, {"ids": [each.id for each in closed]})
        parts = {(row.batch_id, OUTPUT if row.outcome == JobState.SUCCEEDED else ERRORS) for row in outcomes}
        rows = [_file_row(each, part) for each in closed for part in (OUTPUT, ERRORS) if (each.id, part) in parts]
        await INSERT_FILES.run(connection, rows)

    async def _end_slices(self, statements: Sequence[Update], limit: int) -> list[str]:
        ended: list[str] = []
        tallies = Tallies(UPKEEP)
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
        "batch_id": closed.id,
        "part": part,
        "created_at": closed.ended_at,
        "expires_at": None if lives_s is None else closed.ended_at + lives_s,
    }
