"""The jobs that stand for the lines of a run, for a retry of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import bindparam, case, func, select

from models.failure import FailureClass
from models.records import NewJob
from models.state import OPEN_STATES, JobState
from models.store.comparing import Comparing
from models.store.history import failure_of
from models.store.runs import current_line
from models.store.sql import job, job_input, result, run_line
from models.store.views import PAGE

ENDED_LINES = (
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
        result.c.provider,
        result.c.error,
        case((job.c.state == str(JobState.FAILED), result.c.body)).label("answer"),
    )
    .select_from(run_line)
    .join(job, job.c.id == run_line.c.job_id)
    .join(job_input, job_input.c.job_id == job.c.id)
    .outerjoin(result, result.c.job_id == job.c.id)
    .where(
        current_line,
        run_line.c.again_id.is_(None),
        run_line.c.position > bindparam("after"),
        job.c.state.not_in([str(state) for state in sorted(OPEN_STATES)]),
    )
    .order_by(run_line.c.position)
    .limit(PAGE)
)
"""A page of the lines of a run that have ended and are not asked again, with their requests."""


@dataclass(frozen=True, slots=True)
class EndedLine:
    """A line of a run that has ended. `job` has today's name and columns of the line, and the id of who ended it."""

    job: NewJob
    batch_id: str
    state: JobState
    failure: FailureClass | None
    provider: str | None


class Rerunning(Comparing):
    async def ended_lines(self, run_id: str) -> AsyncIterator[EndedLine]:
        """The lines of a run that have ended, in their order; those whose request was pruned are left out."""
        async for row in self._run_pages(ENDED_LINES, {"run_id": run_id}):
            state = JobState(row.state)
            failure = failure_of(row) if state is JobState.FAILED else None
            yield EndedLine(await self._as_new(row), row.batch_id, state, failure, row.provider)
