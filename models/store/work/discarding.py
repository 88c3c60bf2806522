"""Deletes a batch that was rejected or has ended, with its jobs, in slices that hold no lock for long."""

from collections.abc import Sequence

from sqlalchemy import BindParameter, Integer, Text, bindparam, delete, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.costs.budgets import BATCH
from understudy.models.state import OPEN_BATCH_STATES, BatchState
from understudy.models.store.database.disk_space import give_room_back
from understudy.models.store.database.engine import Database
from understudy.models.store.errors import StoreBusy, StoreConflict
from understudy.models.store.sql import (
    NOW,
    SLICE,
    attempt,
    batch,
    budget_grant,
    file,
    job,
    job_input,
    result,
    run_line,
    tally,
)

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
    """Delete the jobs of a batch, in slices."""
    slice_ = SLICE
    while True:
        try:
            async with database.write() as connection:
                asked = {"batch_id": batch_id, "at_most": slice_}
                ids = (await connection.execute(SOME_JOBS, asked)).scalars().all()
                await delete_jobs(connection, ids)
            if not ids:
                return
        except StoreBusy:
            slice_ //= SMALLER
            if not slice_:
                raise


async def delete_jobs(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """Delete some jobs with all rows that belong to them."""
    for statement in DELETE_JOBS if ids else ():
        await connection.execute(statement, {"ids": ids})
