"""Workers: their leases, and what they held when they stopped or died; finds the job that kills its workers.

A crash counts against every job that the worker was running; see `models.jobs.suspects` for the consequences.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Update,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import ResultRecord
from understudy.models.jobs.suspects import DEAD_AT
from understudy.models.jobs.wait_reasons import GIVEN_BACK, as_json, put_back_for
from understudy.models.state import JobState
from understudy.models.store.ledger import Area
from understudy.models.store.outbox import ENDED_JOB, RELEASE_DELIVERIES, announce_jobs
from understudy.models.store.sql import (
    NOW,
    RUNNING,
    job,
    tally,
    worker,
)
from understudy.models.store.tallies import OF_JOBS, Tallies
from understudy.models.store.work.claims import INSERT_RESULTS, result_row
from understudy.models.tables import Worker

INSERT_WORKER = insert(worker).values(started_at=NOW, lease_until=NOW + bindparam("lease_s"))
"""Begin a worker's lease."""

BEAT = (
    update(worker)
    .where(worker.c.id == bindparam("worker_id"))
    .values(lease_until=NOW + bindparam("lease_s"))
    .returning(worker.c.id)
)
"""Renew a lease, unless the worker was rescued."""

GIVE_BACK = (
    update(job)
    .where(RUNNING, job.c.worker_id == bindparam("holder"))
    .values(
        state=case((job.c.cancel_requested, str(JobState.CANCELLED)), else_=str(JobState.QUEUED)),
        ended_at=case((job.c.cancel_requested, NOW), else_=None),
        worker_id=None,
        not_before=0.0,
        waiting=as_json(GIVEN_BACK),
    )
    .returning(*ENDED_JOB)
)
"""Make due at once what a worker holds; end jobs that were cancelled in the meantime."""

GIVE_BACK_SOME = GIVE_BACK.where(job.c.id.in_(bindparam("ids", expanding=True)))
"""As `GIVE_BACK`, for some jobs only."""

DELETE_WORKER = delete(worker).where(worker.c.id == bindparam("worker_id"))
"""End a lease."""

LIVE_WORKERS = select(worker).where(worker.c.lease_until > NOW).order_by(worker.c.id)
"""Workers with a live lease."""

WRITER = "rescue"

_orphans = (
    select(job.c.worker_id)
    .where(RUNNING, job.c.worker_id.is_not(None), ~exists().where(worker.c.id == job.c.worker_id))
    .distinct()
)

DEAD_HOLDERS = union(select(worker.c.id).where(worker.c.lease_until <= NOW), _orphans)
"""Workers whose lease has ended, and holders of jobs without a worker row."""

ALL_HOLDERS = union(select(worker.c.id), _orphans)
"""Every worker, and every holder of jobs."""

LOCK_DEAD_WORKER = (
    select(worker.c.id)
    .where(worker.c.id == bindparam("holder"), or_(worker.c.lease_until <= NOW, bindparam("even_alive", type_=Boolean)))
    .with_for_update(skip_locked=True)
)
"""Lock a dead worker's row while its jobs are taken, so that it cannot come back; no row if it came back or is
starting jobs right now."""

WORKER_EXISTS = select(worker.c.id).where(worker.c.id == bindparam("holder"))
"""Whether a worker has a row."""

HOW_MANY_ABOARD = select(func.count()).where(RUNNING, job.c.worker_id == bindparam("holder"))
"""The number of jobs that a worker holds."""

HAS_ENDED_JOBS = select(
    exists().where(tally.c.minute >= bindparam("since_minute"), tally.c.kind == OF_JOBS, tally.c.worker_id != WRITER)
)
"""Whether a job ended in a worker, or was ended by a user."""

_crashes = job.c.crashes + 1

_dead = (_crashes >= DEAD_AT) & bindparam("was_alone", type_=Boolean)

TAKE_BACK = (
    update(job)
    .where(RUNNING, job.c.worker_id == bindparam("holder"))
    .values(
        crashes=_crashes,
        state=case(
            (job.c.cancel_requested, str(JobState.CANCELLED)),
            (_dead, str(JobState.FAILED)),
            else_=str(JobState.QUEUED),
        ),
        ended_at=case((or_(job.c.cancel_requested, _dead), NOW), else_=None),
        worker_id=None,
        not_before=0.0,
        waiting=as_json(put_back_for("its worker died")),
    )
    .returning(*ENDED_JOB)
)
"""A dead worker's jobs are due at once; one that ran alone and has crashed too many workers fails, a cancelled one
ends."""

CRASHED = ResultRecord(
    status_code=None,
    body=None,
    error={
        "code": str(FailureClass.CRASHED),
        "message": f"{DEAD_AT} workers died while running this job, the last one with nothing else to run; "
        "it is not retried",
    },
    failure=FailureClass.CRASHED,
)
"""The result of a job that kills its workers."""


class Workers(Area):
    async def register(self, new: Worker, lease_s: float) -> None:
        """Begin a lease. `started_at` and `lease_until` come from the ledger's clock, not from `new`."""
        row = {"id": new.id, "host": new.host, "pid": new.pid, "concurrency": new.concurrency, "lease_s": lease_s}
        await self._db.change(INSERT_WORKER, row)

    async def beat(self, worker_id: str, lease_s: float) -> bool:
        """Renew a lease. False: the worker was rescued, its jobs belong to others now, and it must stop."""
        return await self._db.change(BEAT, {"worker_id": worker_id, "lease_s": lease_s}) > 0

    async def remove(self, worker_id: str) -> None:
        """End a lease properly. What the worker still holds, webhooks included, becomes due at once; no crash is
        counted."""
        async with self._db.write() as connection:
            await self._give_back(connection, GIVE_BACK, {"holder": worker_id})
            await connection.execute(RELEASE_DELIVERIES, {"holder": worker_id})
            await connection.execute(DELETE_WORKER, {"worker_id": worker_id})

    async def live(self) -> list[Worker]:
        return [Worker(**row._mapping) for row in await self._db.rows(LIVE_WORKERS)]

    async def give_back(self, worker_id: str, ids: Sequence[str]) -> int:
        """Make due at once those of these jobs that this worker holds, for instance because the reply to `start` was
        lost; returns how many it held."""
        async with self._db.write() as connection:
            return await self._give_back(connection, GIVE_BACK_SOME, {"holder": worker_id, "ids": list(ids)})

    async def _give_back(self, connection: AsyncConnection, statement: Update, words: dict[str, Any]) -> int:
        tallies = Tallies(words["holder"])
        returned = (await connection.execute(statement, words)).all()
        ended = [row for row in returned if row.state == JobState.CANCELLED]
        tallies.jobs_ended(ended)
        await announce_jobs(connection, ended)
        await tallies.write(connection)
        return len(returned)

    async def rescue(self, sure: Callable[[], bool] = lambda: True) -> list[tuple[str, int]]:
        """Take back the jobs of workers whose lease has ended: worker ids, and how many jobs each held.

        `sure` is asked after the ledger has replied: while it was unavailable, no worker could renew a lease.
        """
        holders = await self._db.values(DEAD_HOLDERS)
        return await self._rescue_each(holders if sure() else [], even_alive=False)

    async def rescue_all(self) -> list[tuple[str, int]]:
        """Take back everything that is running, for a process that knows that no worker can be alive (it holds the
        data folder's lock). These jobs were running when all processes died."""
        holders = await self._db.values(ALL_HOLDERS)
        return await self._rescue_each(holders, even_alive=True)

    async def rescue_one(self, worker_id: str) -> int:
        """Take back the jobs of a worker whose process was seen to exit, without waiting for its lease; returns how
        many it held: none if it exited properly."""
        return sum(jobs for _, jobs in await self._rescue_each([worker_id], even_alive=True))

    async def has_ended_jobs(self, lately_s: float) -> bool:
        """Whether a job has ended in the last `lately_s` seconds, or in the minute before, other than by crashes."""
        asked = {"since_minute": int((await self._ledger.now() - lately_s) // 60)}
        return bool(await self._db.value(HAS_ENDED_JOBS, asked))

    async def _rescue_each(self, holders: Sequence[str], even_alive: bool) -> list[tuple[str, int]]:
        rescued = []
        for holder in holders:
            async with self._db.write() as connection:
                if await _is_ours_to_rescue(connection, holder, even_alive):
                    rescued.append((holder, await _take_back(connection, holder)))
        return rescued


async def _is_ours_to_rescue(connection: AsyncConnection, holder: str, even_alive: bool) -> bool:
    locked = await connection.execute(LOCK_DEAD_WORKER, {"holder": holder, "even_alive": even_alive})
    if locked.first() is not None:
        return True
    return (await connection.execute(WORKER_EXISTS, {"holder": holder})).first() is None


async def _take_back(connection: AsyncConnection, holder: str) -> int:
    aboard = (await connection.execute(HOW_MANY_ABOARD, {"holder": holder})).scalar_one()
    rows = (await connection.execute(TAKE_BACK, {"holder": holder, "was_alone": aboard == 1})).all()
    tallies = Tallies(WRITER)
    ended = [row for row in rows if row.ended_at is not None]
    tallies.jobs_ended(ended)
    results = [result_row(row, CRASHED) for row in rows if row.state == JobState.FAILED]
    await INSERT_RESULTS.run(connection, results)
    await announce_jobs(connection, ended)
    await connection.execute(RELEASE_DELIVERIES, {"holder": holder})
    await tallies.write(connection)
    await connection.execute(DELETE_WORKER, {"worker_id": holder})
    return len(rows)
