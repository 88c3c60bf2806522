"""Jobs to run again: those of a batch, or behind the lines of a run; and unsent jobs that get another chain."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, Text, Update, bindparam, func, select, update

from understudy.models.failure import FailureClass
from understudy.models.jobs.submission import NewJob
from understudy.models.state import TERMINAL_STATES, JobState, Priority
from understudy.models.store.chains import insert_chains
from understudy.models.store.ledger import CLOCK, Area, Ledger
from understudy.models.store.paging import Paged, size_of
from understudy.models.store.sql import (
    QUEUED,
    JsonRows,
    job,
    job_input,
    result,
    run_line,
)
from understudy.models.store.work.jobs import failure_of
from understudy.models.store.work.runs import current_line


@dataclass(frozen=True, slots=True)
class EndedJob:
    """An ended job as a new one with the same request, with its old id."""

    job: NewJob
    batch_id: str
    state: JobState
    failure: FailureClass | None  # of a failed one


ASKED = (
    select(job, job_input.c.body.label("request"), job_input.c.extra)
    .join(job_input, job_input.c.job_id == job.c.id)
    .where(job.c.id == bindparam("job_id"))
)
"""A job with its request."""

ENDED_BADLY = [str(state) for state in sorted(TERMINAL_STATES - {JobState.SUCCEEDED})]

_to_run_again = (
    select(job, job.c.id.label("job_id"), job_input.c.body.label("request"), job_input.c.extra, result.c.failure)
    .select_from(job)
    .join(job_input, job_input.c.job_id == job.c.id)
    .outerjoin(result, result.c.job_id == job.c.id)
    .where(job.c.batch_id == bindparam("batch_id"))
)

_asked_bytes = size_of(job.c.custom_id, job_input.c.body, job_input.c.extra)

ENDED_BADLY_PAGE = Paged(_to_run_again.where(job.c.state.in_(ENDED_BADLY)), job.c.id, _asked_bytes)
"""A page of a batch's jobs that ended without an answer, with their requests and how they failed."""

UNFINISHED_PAGE = Paged(
    _to_run_again.where(job.c.state.not_in([str(JobState.SUCCEEDED), str(JobState.FAILED)])), job.c.id, _asked_bytes
)
"""A page of a batch's jobs without a result, whether open or closed."""

ANSWERED_BY_PAGE = Paged(
    _to_run_again.where(
        job.c.state == str(JobState.SUCCEEDED), result.c.provider.in_(bindparam("providers", expanding=True))
    ),
    job.c.id,
    _asked_bytes,
)
"""A page of a batch's jobs answered by certain providers, with their requests."""

CUSTOM_IDS_PAGE = Paged(
    select(job.c.id.label("job_id"), job.c.custom_id).where(job.c.batch_id == bindparam("batch_id")),
    job.c.id,
    size_of(job.c.custom_id),
)
"""A page of the custom ids of a batch's jobs."""

_lines: Select[Any] = (
    select(
        run_line.c.position,
        job.c.id,
        job.c.batch_id,
        job.c.state,
        job.c.chain_id,
        job.c.tokens,
        job.c.max_output_tokens,
        job.c.priority,
        job.c.tenant,
        run_line.c.name.label("custom_id"),
        run_line.c.line,
        job_input.c.body.label("request"),
        func.coalesce(run_line.c.extra, job_input.c.extra).label("extra"),
        result.c.failure,
    )
    .select_from(run_line)
    .join(job, job.c.id == run_line.c.job_id)
    .join(job_input, job_input.c.job_id == job.c.id)
    .outerjoin(result, result.c.job_id == job.c.id)
    .where(current_line, run_line.c.again_id.is_(None))
)

_size = size_of(run_line.c.name, run_line.c.extra, job_input.c.body, job_input.c.extra)

LINES_ENDED_BADLY = Paged(_lines.where(job.c.state.in_(ENDED_BADLY)), run_line.c.position, _size)
"""A page of a run's lines that have no answer and are not being sent, with their requests and how they failed."""

LINES_ANSWERED_BY = Paged(
    _lines.where(job.c.state == str(JobState.SUCCEEDED), result.c.provider.in_(bindparam("providers", expanding=True))),
    run_line.c.position,
    _size,
)
"""A page of a run's lines answered by certain providers and not being sent again, with their requests."""


def reroute(dialect: str) -> tuple[Update, JsonRows]:
    """Move some queued jobs to another chain, from its first step, as soon as they may start."""
    given = JsonRows(dialect, {"job_id": Text(), "chain_id": Text()})
    new = given.source.c
    values = {"chain_id": new.chain_id, "progress": None, "not_before": 0.0, "waiting": None}
    return update(job).where(job.c.id == new.job_id, QUEUED).values(values), given


class Reruns(Area):
    async def asked(self, job_id: str) -> NewJob | None:
        """A job as a new one with the same request, with its old id. None: no such job, or its request was removed."""
        row = await self._db.row(ASKED, {"job_id": job_id})
        return None if row is None else await _as_new(self._ledger, row)

    async def unanswered_jobs(self, batch_id: str) -> AsyncIterator[EndedJob]:
        """A batch's jobs that ended without an answer; those whose request was pruned are left out."""
        async for row in ENDED_BADLY_PAGE.each(self._db, {"batch_id": batch_id}):
            yield await ended_job(self._ledger, row)

    async def answered_by(self, batch_id: str, providers: Sequence[str]) -> AsyncIterator[EndedJob]:
        """A batch's jobs answered by one of these providers; those whose request was pruned are left out."""
        async for row in ANSWERED_BY_PAGE.each(self._db, {"batch_id": batch_id, "providers": list(providers)}):
            yield await ended_job(self._ledger, row)

    async def unfinished(self, batch_id: str) -> AsyncIterator[NewJob]:
        """A batch's jobs without a result: open, cancelled or expired. With their old ids."""
        async for row in UNFINISHED_PAGE.each(self._db, {"batch_id": batch_id}):
            yield await _as_new(self._ledger, row)

    async def custom_ids(self, batch_id: str) -> AsyncIterator[str]:
        """The custom ids of all jobs of a batch, open or not."""
        async for row in CUSTOM_IDS_PAGE.each(self._db, {"batch_id": batch_id}):
            yield row.custom_id

    async def unanswered_lines(self, run_id: str) -> AsyncIterator[EndedJob]:
        """The lines of a run that ended without an answer, with the current names and columns and the ids of their
        jobs; those whose request was pruned are left out."""
        async for row in LINES_ENDED_BADLY.each(self._db, {"of_run": run_id}, 0):
            yield await ended_job(self._ledger, row)

    async def lines_answered_by(self, run_id: str, providers: Sequence[str]) -> AsyncIterator[EndedJob]:
        """The same for lines answered by one of these providers."""
        async for row in LINES_ANSWERED_BY.each(self._db, {"of_run": run_id, "providers": list(providers)}, 0):
            yield await ended_job(self._ledger, row)

    async def reroute(self, jobs: Sequence[NewJob]) -> int:
        """Move those of up to 2,000 jobs that are queued to the chains given here; returns how many."""
        statement, given = reroute(self._db.dialect)
        async with self._db.write() as connection:
            chain_ids = await insert_chains(connection, jobs, (await connection.execute(CLOCK)).scalar_one())
            rows = [{"job_id": each.id, "chain_id": chain_ids[id(each.chain)]} for each in jobs]
            return (await connection.execute(statement, given.bind(rows))).rowcount


async def ended_job(ledger: Ledger, row: Row[Any]) -> EndedJob:
    return EndedJob(await _as_new(ledger, row), row.batch_id, JobState(row.state), failure_of(row))


async def _as_new(ledger: Ledger, row: Row[Any]) -> NewJob:
    """A job with the same request as another one, and its id."""
    return NewJob(
        id=row.id,
        body=row.request,
        chain=await ledger.get_chain(row.chain_id),
        custom_id=row.custom_id,
        line=row.line,
        tokens=row.tokens,
        max_output_tokens=row.max_output_tokens,
        priority=Priority(row.priority),
        tenant=row.tenant,
        extra=row.extra,
    )
