"""The jobs behind the lines of a run, for a retry; and rerouting of a batch's unsent jobs."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Select, Text, Update, bindparam, func, select, update

from understudy.models.records import NewJob
from understudy.models.state import JobState
from understudy.models.store.batches.chains import insert_chains
from understudy.models.store.jobs.history import ENDED_BADLY, EndedJob, ended_job
from understudy.models.store.ledger import CLOCK, Area
from understudy.models.store.paging import Paged, size_of
from understudy.models.store.runs.runs import current_line
from understudy.models.store.sql import QUEUED, JsonRows, job, job_input, result, run_line

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
    async def lines_ended_badly(self, run_id: str) -> AsyncIterator[EndedJob]:
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
