"""Cancels single jobs: immediately while queued, through their worker while running."""

from sqlalchemy import bindparam, case, or_, select, update

from understudy.models.state import BatchState, JobState
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, QUEUED, RUNNING, batch, job
from understudy.models.store.tallies import Tallies
from understudy.models.store.webhooks.outbox import ENDED_JOB, announce_jobs

WRITER = "upkeep"

CANCEL_JOB = (
    update(job)
    .where(job.c.id == bindparam("job_id"), or_(QUEUED, RUNNING))
    .values(
        state=case((QUEUED, str(JobState.CANCELLED)), else_=job.c.state),
        ended_at=case((QUEUED, NOW), else_=None),
        cancel_requested=True,
    )
    .returning(*ENDED_JOB)
)
"""Cancel a queued job; ask the worker of a running one to stop it."""

HOLDER = select(job.c.worker_id).where(RUNNING, job.c.id == bindparam("job_id"))
"""The worker that runs a job."""

JOB_STATE = select(job.c.state).where(job.c.id == bindparam("job_id"))
"""The state of a job."""

CANCELLED_RUNNING = (
    select(job.c.id)
    .outerjoin(batch, batch.c.id == job.c.batch_id)
    .where(RUNNING, or_(job.c.cancel_requested, batch.c.state == str(BatchState.CANCELLING)))
)
"""Running jobs cancelled by their owner."""


class Cancelling(Area):
    async def cancel(self, job_id: str) -> JobState | None:
        """Cancel a job. Returns CANCELLED if it was queued, RUNNING if its worker was asked to stop it, its final
        state if it had ended, or None if there is no such job."""
        tallies = Tallies(WRITER)
        async with self._db.write() as connection:
            row = (await connection.execute(CANCEL_JOB, {"job_id": job_id})).first()
            if row is None:
                state = (await connection.execute(JOB_STATE, {"job_id": job_id})).scalar()
                return None if state is None else JobState(state)
            ended = [row] if row.ended_at is not None else []
            tallies.jobs_ended(ended)
            await announce_jobs(connection, ended)
            await tallies.write(connection)
        return JobState(row.state)

    async def holder_of(self, job_id: str) -> str | None:
        """The id of the worker currently running a job."""
        async with self._db.read() as connection:
            holder: str | None = (await connection.execute(HOLDER, {"job_id": job_id})).scalar()
        return holder

    async def cancelled_running(self) -> list[str]:
        """Running jobs cancelled by their owner: their workers should stop them."""
        async with self._db.read() as connection:
            return list((await connection.execute(CANCELLED_RUNNING)).scalars())
