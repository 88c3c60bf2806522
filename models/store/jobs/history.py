"""Single jobs and provider calls for display, and the jobs that a retry runs again."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, bindparam, select

from understudy.models.failure import FailureClass
from understudy.models.records import NewJob
from understudy.models.state import TERMINAL_STATES, JobState, Priority
from understudy.models.store.ledger import Area, Ledger
from understudy.models.store.paging import Paged, size_of
from understudy.models.store.sql import attempt, job, job_input, made_since, made_until, result
from understudy.models.store.tallies import ANSWERED

LATENCY_SAMPLE = 10_000

JOB = (
    select(job, job_input.c.body.label("request"), job_input.c.extra)
    .outerjoin(job_input, job_input.c.job_id == job.c.id)
    .where(job.c.id == bindparam("job_id"))
)
"""A job with its request."""

RESULT_OF_JOB = select(result).where(result.c.job_id == bindparam("job_id"))
"""The terminal record of a job."""

ATTEMPTS_OF_JOB = select(attempt).where(attempt.c.job_id == bindparam("job_id")).order_by(attempt.c.started_at)
"""The provider calls made for a job, in order."""

LATEST_LATENCIES = (
    select(result.c.provider, result.c.model, result.c.latency_ms)
    .where(result.c.batch_id == bindparam("batch_id"), result.c.provider.is_not(None))
    .order_by(result.c.job_id.desc())
    .limit(LATENCY_SAMPLE)
)
"""Latencies of a batch's latest answers."""


def attempts_page(matching: Sequence[ColumnElement[bool]], latest: bool = False) -> Select[Any]:
    """Provider calls that meet all conditions, by id, ascending or descending."""
    order = attempt.c.id.desc() if latest else attempt.c.id
    return select(attempt).where(attempt.c.id > bindparam("after"), *matching).order_by(order)


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


@dataclass(frozen=True, slots=True)
class EndedJob:
    """An ended job as a new one with the same request, with its old id."""

    job: NewJob
    batch_id: str
    state: JobState
    failure: FailureClass | None  # of a failed one


class History(Area):
    async def view(self, job_id: str) -> dict[str, Any] | None:
        """A job's row with its `request`, `result` (None while open) and `attempts`; None if there is no such job."""
        key = {"job_id": job_id}
        async with self._db.read() as connection:
            row = (await connection.execute(JOB, key)).mappings().first()
            if row is None:
                return None
            record = (await connection.execute(RESULT_OF_JOB, key)).mappings().first()
            calls = (await connection.execute(ATTEMPTS_OF_JOB, key)).mappings().all()
        return {**row, "result": record and priced(record), "attempts": [priced(call) for call in calls]}

    async def attempts(
        self,
        *,
        tenant: str | None = None,
        batch_id: str | None = None,
        job_id: str | None = None,
        provider: str | None = None,
        failure: FailureClass | Literal["answered"] | None = None,
        key: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        after: str = "",
        before: str = "",
        latest: bool = False,
    ) -> list[dict[str, Any]]:
        """Provider calls by id, filtered; only those between the ids `after` and `before`.

        `latest`: if there are more than `limit`, the last ones instead of the first.
        """
        equal = {"tenant": tenant, "batch_id": batch_id, "job_id": job_id, "provider": provider, "key": key}
        matching = [attempt.c[name] == str(value) for name, value in equal.items() if value is not None]
        if failure is not None:
            matching.append(attempt.c.failure.is_(None) if failure == ANSWERED else attempt.c.failure == str(failure))
        if before:
            matching.append(attempt.c.id < before)
        if since is not None:
            matching += [attempt.c.started_at >= since, made_since(attempt.c.id, "att", since)]
        if until is not None:
            matching += [attempt.c.started_at < until, made_until(attempt.c.id, "att", until)]
        page = attempts_page(matching, latest).limit(limit)
        async with self._db.read() as connection:
            rows = [priced(row) for row in (await connection.execute(page, {"after": after})).mappings()]
        return rows[::-1] if latest else rows

    async def latency_percentiles(self, batch_id: str) -> dict[tuple[str, str], tuple[int, int]]:
        """Median and 95th percentile (ms) by provider and model, of the latest 10,000 results."""
        async with self._db.read() as connection:
            rows = (await connection.execute(LATEST_LATENCIES, {"batch_id": batch_id})).all()
        by_deployment = defaultdict(list)
        for row in rows:
            by_deployment[row.provider, row.model].append(row.latency_ms)
        return {key: (_percentile(times, 50), _percentile(times, 95)) for key, times in by_deployment.items()}

    async def ended_badly(self, batch_id: str) -> AsyncIterator[EndedJob]:
        """A batch's jobs that ended without an answer; those whose request was pruned are left out."""
        async for row in ENDED_BADLY_PAGE.each(self._db, {"batch_id": batch_id}):
            yield await ended_job(self._ledger, row)

    async def answered_jobs(self, batch_id: str, providers: Sequence[str]) -> AsyncIterator[EndedJob]:
        """A batch's jobs answered by one of these providers; those whose request was pruned are left out."""
        async for row in ANSWERED_BY_PAGE.each(self._db, {"batch_id": batch_id, "providers": list(providers)}):
            yield await ended_job(self._ledger, row)

    async def custom_ids(self, batch_id: str) -> AsyncIterator[str]:
        """The custom ids of all jobs of a batch, open or not."""
        async for row in CUSTOM_IDS_PAGE.each(self._db, {"batch_id": batch_id}):
            yield row.custom_id

    async def asked(self, job_id: str) -> NewJob | None:
        """A job as a new one with the same request, with its old id. None: no such job, or its request was removed."""
        async with self._db.read() as connection:
            row = (await connection.execute(ASKED, {"job_id": job_id})).first()
        return None if row is None else await _as_new(self._ledger, row)

    async def unfinished(self, batch_id: str) -> AsyncIterator[NewJob]:
        """A batch's jobs without a result: open, cancelled or expired. With their old ids."""
        async for row in UNFINISHED_PAGE.each(self._db, {"batch_id": batch_id}):
            yield await _as_new(self._ledger, row)


def priced(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A call or a result with its cost; None if the price is unknown."""
    shown = dict(row)
    return {**shown, "cost_usd": None} if shown.pop("unpriced") else shown


def failure_of(row: Row[Any]) -> FailureClass | None:
    """Of a row with `state` and `failure`; None: the job did not fail."""
    return FailureClass(row.failure or FailureClass.UNKNOWN) if row.state == JobState.FAILED else None


def _percentile(times_ms: Sequence[int], percent: int) -> int:
    ordered = sorted(times_ms)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


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
