"""Ends that no worker brings about: cancelled, expired and finished batches, in slices; credentials."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Insert,
    Row,
    Select,
    Update,
    bindparam,
    case,
    delete,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.disabled import ALL_MODELS, SetAside
from understudy.models.failure import FailureClass
from understudy.models.state import BatchState, JobState
from understudy.models.store.batches.views import ERRORS, OUTPUT
from understudy.models.store.ledger import Ledger
from understudy.models.store.sql import NOW, QUEUED, RUNNING, BulkInsert, batch, clean, credential, file, job, tally
from understudy.models.store.tallies import OF_JOBS, Tallies
from understudy.models.store.webhooks.outbox import ENDED_BATCH, ENDED_JOB, announce_batches, announce_jobs

SLICE = 2_000
WRITER = "upkeep"

ENDS = {
    BatchState.IN_PROGRESS: BatchState.COMPLETED,
    BatchState.CANCELLING: BatchState.CANCELLED,
    BatchState.EXPIRING: BatchState.EXPIRED,
}
"""What a batch becomes when none of its jobs is open."""

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
"""End the batches none of whose jobs is queued or running."""

OUTCOMES_OF_BATCHES = (
    select(tally.c.batch_id, tally.c.outcome)
    .where(tally.c.batch_id.in_(bindparam("ids", expanding=True)), tally.c.kind == OF_JOBS)
    .distinct()
)
"""How jobs of some batches ended."""

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
"""Cancel some of the queued jobs of batches that are being cancelled."""

EXPIRE_BATCHES = (
    update(batch)
    .where(batch.c.state == str(BatchState.IN_PROGRESS), batch.c.expires_at <= NOW)
    .values(state=str(BatchState.EXPIRING))
)
"""Batches past their deadline start no more jobs."""

_validating = select(batch.c.id).where(batch.c.state == str(BatchState.VALIDATING))

EXPIRE_SLICES = (
    _end_slice(_queued_in(BatchState.EXPIRING), JobState.EXPIRED),
    _end_slice(
        select(job.c.id).where(QUEUED, job.c.expires_at <= NOW, job.c.batch_id.not_in(_validating)), JobState.EXPIRED
    ),
)
"""Expire some of the queued jobs whose batch, or whose own deadline, has passed."""

CANCEL_BATCH = (
    update(batch)
    .where(
        batch.c.id == bindparam("batch_id"),
        batch.c.state.in_([str(BatchState.VALIDATING), str(BatchState.IN_PROGRESS)]),
    )
    .values(state=str(BatchState.CANCELLING), cancelling_at=NOW)
    .returning(batch.c.id)
)
"""A batch starts no more jobs, and those in flight are to be stopped."""

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
"""A queued job is cancelled; of a running one its worker is asked to."""

HOLDER = select(job.c.worker_id).where(RUNNING, job.c.id == bindparam("job_id"))
"""The worker that runs a job."""

JOB_STATE = select(job.c.state).where(job.c.id == bindparam("job_id"))
"""The state of a job."""

CANCELLED_RUNNING = (
    select(job.c.id)
    .outerjoin(batch, batch.c.id == job.c.batch_id)
    .where(RUNNING, or_(job.c.cancel_requested, batch.c.state == str(BatchState.CANCELLING)))
)
"""Running jobs that their owner has cancelled."""


def _replacing(insert: postgresql.Insert | sqlite.Insert) -> Insert:
    values = {each.name: insert.excluded[each.name] for each in credential.columns if not each.primary_key}
    return insert.on_conflict_do_update(index_elements=list(credential.primary_key.columns), set_=values)


SET_ASIDE = {
    "postgresql": _replacing(postgresql.insert(credential)),
    "sqlite": _replacing(sqlite.insert(credential)),
}
"""Record that a credential is not to be used, in place of what was recorded before."""

CREDENTIALS = select(credential).order_by(credential.c.provider, credential.c.key, credential.c.model)
"""The credentials that are set aside."""

ENABLE = (
    delete(credential)
    .where(
        credential.c.provider == bindparam("provider"),
        or_(credential.c.key == bindparam("name"), bindparam("all_keys", type_=Boolean)),
        or_(credential.c.model == bindparam("model"), bindparam("all_records", type_=Boolean)),
    )
    .returning(credential.c.key)
)
"""A provider's credential, or all of them, may be used again, as far as all records say or one."""


class Upkeep(Ledger):
    async def close_batches(self) -> list[str]:
        """End the batches that have no open job; returns their ids."""
        async with self._db.write() as connection:
            closed = (await connection.execute(CLOSE_BATCHES)).all()
            ids = [each.id for each in closed]
            if ids:
                await self._add_files(connection, closed)
                await announce_batches(connection, closed)
        return ids

    async def cancel_slice(self, limit: int = SLICE) -> int:
        """Cancel up to `limit` queued jobs of batches that are being cancelled; 0 when none is left."""
        return len(await self._end_slices([CANCEL_SLICE], limit))

    async def expire_slice(self, limit: int = SLICE) -> list[str]:
        """Expire up to `limit` queued jobs that passed their deadline; returns their ids, none when none is left."""
        async with self._db.write() as connection:
            await connection.execute(EXPIRE_BATCHES)
        return await self._end_slices(EXPIRE_SLICES, limit)

    async def cancel_batch(self, batch_id: str) -> bool:
        """Begin to cancel a batch; False when it has ended, is ending, or does not exist."""
        async with self._db.write() as connection:
            return (await connection.execute(CANCEL_BATCH, {"batch_id": batch_id})).first() is not None

    async def cancel_job(self, job_id: str) -> JobState | None:
        """Cancel a job: CANCELLED at once if it was queued, RUNNING if its worker was asked to stop it, the state
        in which it had ended before, or None when there is no such job."""
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
        """The id of the worker that runs a job just now."""
        async with self._db.read() as connection:
            holder: str | None = (await connection.execute(HOLDER, {"job_id": job_id})).scalar()
        return holder

    async def cancelled_running(self) -> list[str]:
        """The running jobs that their owner has cancelled: their workers should stop them."""
        async with self._db.read() as connection:
            return list((await connection.execute(CANCELLED_RUNNING)).scalars())

    async def set_aside(
        self,
        provider: str,
        key: str,
        model: str,
        failure: FailureClass,
        reason: str,
        fingerprint: str = "",
        probe_at: float | None = None,
        since: float | None = None,
        job_id: str | None = None,
    ) -> None:
        """Record that a credential is not to be used (for one model, or ALL_MODELS), why and since when (now), in place
        of what was recorded before. `job_id`: the job that was refused with this reason."""
        now = await self.now() if since is None else since
        words = {"failure": str(failure), "reason": clean(reason), "fingerprint": fingerprint, "probe_at": probe_at}
        words["job_id"] = job_id
        row = {"provider": provider, "key": key, "model": model or ALL_MODELS, "since": now, **words}
        async with self._db.write() as connection:
            await connection.execute(SET_ASIDE[self._db.dialect], row)

    async def set_aside_list(self) -> list[SetAside]:
        async with self._db.read() as connection:
            rows = (await connection.execute(CREDENTIALS)).mappings()
            return [SetAside(**row | {"failure": FailureClass(row["failure"])}) for row in map(dict, rows)]

    async def enable(self, provider: str, key: str | None = None, model: str | None = None) -> list[str]:
        """Use a credential again, or all of a provider; returns the keys of the records that were removed.

        `model`: remove only the record for this model, or that for ALL_MODELS.
        """
        asked = {"provider": provider, "name": key or "", "all_keys": key is None}
        asked |= {"model": model or ALL_MODELS, "all_records": model is None}
        async with self._db.write() as connection:
            return list((await connection.execute(ENABLE, asked)).scalars())

    async def _add_files(self, connection: AsyncConnection, closed: Sequence[Row[Any]]) -> None:
        """What came of a batch can be listed and deleted like other files, but its lines are read from the results."""
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
