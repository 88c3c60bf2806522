"""Deletes old data in slices that hold no lock for long."""

from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import (
    BindParameter,
    Integer,
    Text,
    bindparam,
    delete,
    exists,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.costs.budgets import BATCH
from understudy.models.records import SINGLE
from understudy.models.state import OPEN_BATCH_STATES, BatchState
from understudy.models.store.database.disk_space import give_room_back
from understudy.models.store.database.engine import Database
from understudy.models.store.errors import StoreBusy, StoreConflict, StoreError
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    NOW,
    attempt,
    batch,
    budget_grant,
    file,
    job,
    job_input,
    result,
    run,
    run_line,
    tally,
)

SLICE = 2_000
SMALLER = 10
"""Factor by which a slice shrinks if it does not fit on an almost full disk."""

REFUSE_ROWS = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), batch.c.state == str(BatchState.VALIDATING))
    .values(state=str(BatchState.FAILED), ended_at=NOW)
)
"""End a batch that was never opened, so that it cannot be filled or opened while being deleted."""

BATCH_STATE = select(batch.c.state).where(batch.c.id == bindparam("batch_id"))
"""The state of a batch."""

SOME_JOBS = (
    select(job.c.id)
    .where(job.c.batch_id == bindparam("batch_id"))
    .order_by(job.c.id)
    .limit(bindparam("at_most", type_=Integer))
)
"""A slice of a batch's jobs, in order."""

ENDED_BATCHES = select(batch.c.id).where(batch.c.ended_at < bindparam("before")).order_by(batch.c.id)
"""The batches that ended before a time."""

ENDED_SINGLES = (
    select(job.c.id)
    .where(job.c.batch_id == SINGLE, job.c.id > bindparam("after"), job.c.ended_at < bindparam("before"))
    .order_by(job.c.id)
    .limit(SLICE)
)
"""A slice of single jobs that ended before a time, by id."""

_ids: BindParameter[str] = bindparam("ids", expanding=True)

DELETE_JOBS = (
    delete(job_input).where(job_input.c.job_id.in_(_ids)),
    delete(result).where(result.c.job_id.in_(_ids)),
    delete(attempt).where(attempt.c.job_id.in_(_ids)),
    delete(run_line).where(run_line.c.job_id.in_(_ids)),
    delete(job).where(job.c.id.in_(_ids)),
)
"""All rows that belong to some jobs."""

DELETE_BATCH = (
    delete(attempt).where(attempt.c.batch_id == bindparam("batch_id")),
    delete(tally).where(tally.c.batch_id == bindparam("batch_id")),
    delete(file).where(file.c.batch_id == bindparam("batch_id")),
    delete(budget_grant).where(budget_grant.c.subject == literal(f"{BATCH}:", Text) + bindparam("batch_id")),
    delete(batch).where(batch.c.id == bindparam("batch_id")),
)
"""The rest of a batch without jobs; the batch row last, so that an interrupted deletion is found again."""


_lines, _idle = run_line.alias("lines"), run.c.taken_until <= NOW
_asked = exists(
    select(_lines.c.run_id).where(
        _lines.c.run_id == run.c.id, or_(_lines.c.job_id.is_not(None), _lines.c.again_id.is_not(None))
    )
)
RUNS_NEVER_ASKED = select(run.c.id).where(
    _idle, ~_asked, exists(select(_lines.c.run_id).where(_lines.c.run_id == run.c.id))
)
"""Runs that no process owns and whose lines have no jobs any more: a repeated run compares everything in any case."""

_place = tuple_(run_line.c.version, run_line.c.position)
DELETE_LINES = delete(run_line).where(
    run_line.c.run_id == bindparam("of_run"),
    exists(select(run.c.id).where(run.c.id == bindparam("of_run"), _idle)),
    _place.in_(
        select(run_line.c.version, run_line.c.position).where(run_line.c.run_id == bindparam("of_run")).limit(SLICE)
    ),
)
"""Some lines of a run that no process owns."""


async def discard_batch(database: Database, batch_id: str) -> None:
    """Delete a batch that was never opened or has ended, with all its rows, in slices.

    Raises StoreConflict if the batch is open.
    """
    async with database.write() as connection:
        await connection.execute(REFUSE_ROWS, {"batch_id": batch_id})
        state = (await connection.execute(BATCH_STATE, {"batch_id": batch_id})).scalar()
    if state is not None and BatchState(state) in OPEN_BATCH_STATES:
        raise StoreConflict(f"batch {batch_id} is {state}; cancel it before deleting it")
    await delete_jobs_of(database, batch_id)
    async with database.write() as connection:
        for statement in DELETE_BATCH:
            await connection.execute(statement, {"batch_id": batch_id})
    await give_room_back(database)


async def delete_jobs_of(database: Database, batch_id: str) -> None:
    slice_ = SLICE
    while True:
        try:
            async with database.write() as connection:
                asked = {"batch_id": batch_id, "at_most": slice_}
                ids = (await connection.execute(SOME_JOBS, asked)).scalars().all()
                await _delete_jobs(connection, ids)
            if not ids:
                return
        except StoreBusy:
            slice_ //= SMALLER
            if not slice_:
                raise


class Pruning(Area):
    async def discard_batch(self, batch_id: str) -> None:
        """Delete a batch that was never opened or has ended, with all its rows, in slices.

        Raises StoreConflict if the batch is open.
        """
        await discard_batch(self._db, batch_id)

    async def discard_refused(self, batch_id: str) -> None:
        """Discard a batch that was rejected. Whatever cannot be deleted now is deleted in the background."""
        with suppress(StoreError):
            await discard_batch(self._db, batch_id)

    async def prune(self, before: float) -> tuple[int, int]:
        """Delete batches and single jobs that ended before a time; returns how many of each."""
        async with self._db.read() as connection:
            batches = (await connection.execute(ENDED_BATCHES, {"before": before})).scalars().all()
        for each in batches:
            await discard_batch(self._db, each)
        singles = await self._prune_singles(before)
        await self._prune_lines()
        return len(batches), singles

    async def _prune_lines(self) -> None:
        async with self._db.read() as connection:
            runs = (await connection.execute(RUNS_NEVER_ASKED)).scalars().all()
        for each in runs:
            deleted = SLICE
            while deleted:
                async with self._db.write() as connection:
                    deleted = (await connection.execute(DELETE_LINES, {"of_run": each})).rowcount

    async def _prune_singles(self, before: float) -> int:
        deleted, after = 0, ""
        while True:
            async with self._db.write() as connection:
                asked = {"before": before, "after": after}
                ids = (await connection.execute(ENDED_SINGLES, asked)).scalars().all()
                await _delete_jobs(connection, ids)
            if not ids:
                return deleted
            deleted, after = deleted + len(ids), ids[-1]


async def _delete_jobs(connection: AsyncConnection, ids: Sequence[str]) -> None:
    for statement in DELETE_JOBS if ids else ():
        await connection.execute(statement, {"ids": ids})
