"""Jobs and provider calls as people and callers see them; cancellation of jobs: immediately while they are queued,
through their worker while they run.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from understudy.models.failure import FailureClass
from understudy.models.jobs.views import JobView
from understudy.models.jobs.wait_reasons import from_json
from understudy.models.objects.attempt import AttemptObject, attempt_object
from understudy.models.state import BatchState, JobState, Priority
from understudy.models.store.ledger import Area
from understudy.models.store.outbox import ENDED_JOB, announce_jobs
from understudy.models.store.sql import (
    BURDEN,
    NOW,
    QUEUED,
    RUNNING,
    attempt,
    batch,
    burden,
    job,
    job_input,
    made_since,
    made_until,
    result,
)
from understudy.models.store.tallies import ANSWERED, UPKEEP, Tallies

LATENCY_SAMPLE = 10_000

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


_spent = (
    select(func.coalesce(func.sum(attempt.c.cost_usd), literal_column("0.0")))
    .where(attempt.c.job_id == job.c.id)
    .scalar_subquery()
)

_viewed: Select[Any] = (
    select(
        *(job.c[name] for name in JobView.__dataclass_fields__ if name in job.c),
        *(job.c.note, job.c.waiting, job_input.c.extra),
        NOW.label("now"),
        _spent.label("spent_usd"),
        exists(select(attempt.c.id).where(attempt.c.job_id == job.c.id, attempt.c.unpriced)).label("unpriced"),
        *(result.c.status_code, result.c.error, result.c.provider, result.c.model, result.c.cost_usd),
        result.c.unpriced.label("unpriced_answer"),
        case((job.c.state == str(JobState.FAILED), result.c.body)).label("error_body"),
    )
    .outerjoin(job_input, job_input.c.job_id == job.c.id)
    .outerjoin(result, result.c.job_id == job.c.id)
)

JOB = _viewed.where(job.c.id == bindparam("job_id"))
"""A job with its result's metadata, without prompt and answer."""

ANSWER = select(result.c.body).where(result.c.job_id == bindparam("job_id"))
"""The answer to a job, or the provider's error body."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Selects jobs of a tenant; None means any. `state` may be "scheduled": queued with a start time in the future."""

    state: str | None = None
    batch_id: str | None = None
    provider: str | None = None  # who wrote the terminal record
    created_after: float | None = None
    created_before: float | None = None


def jobs_page(wanted: JobFilter, after: str, ascending: bool) -> Select[Any]:
    """A tenant's jobs by id, which is by time, after the last id seen."""
    matching = [job.c.tenant == bindparam("tenant"), *_matching(wanted)]
    if after:
        matching.append(job.c.id > bindparam("after") if ascending else job.c.id < bindparam("after"))
    order = job.c.id if ascending else job.c.id.desc()
    return _viewed.where(*matching).order_by(order).limit(bindparam("most"))


def _matching(wanted: JobFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        found += _in_state(wanted.state)
    if wanted.batch_id is not None:
        found.append(job.c.batch_id == wanted.batch_id)
    if wanted.provider is not None:
        of_job = and_(result.c.job_id == job.c.id, result.c.provider == wanted.provider)
        found.append(exists(select(result.c.job_id).where(of_job).correlate(job)))
    if wanted.created_after is not None:
        found += [job.c.created_at > wanted.created_after, made_since(job.c.id, "job", wanted.created_after)]
    if wanted.created_before is not None:
        found += [job.c.created_at < wanted.created_before, made_until(job.c.id, "job", wanted.created_before)]
    return found


def _in_state(state: str) -> list[ColumnElement[bool]]:
    """States with few jobs are written so that their partial indexes apply."""
    if state == "scheduled":
        return [QUEUED, job.c.not_before > literal_column("0"), job.c.not_before > NOW]
    if state == JobState.QUEUED:
        return [QUEUED, job.c.not_before <= NOW]
    if state == JobState.RUNNING:
        return [RUNNING]
    return [job.c.state == state]


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

ASKED_AT_ONCE = 1_000

_ids: BindParameter[Any] = bindparam("ids", expanding=True)

ENDED_AMONG = union_all(
    select(job.c.id).where(job.c.id.in_(_ids), job.c.ended_at.is_not(None)),
    select(batch.c.id).where(batch.c.id.in_(_ids), batch.c.ended_at.is_not(None)),
)
"""The given jobs and batches that have ended."""


class Jobs(Area):
    async def view(self, job_id: str, tenant: str | None = None) -> JobView | None:
        """A job with its calls. None: there is no such job, or it is not this tenant's."""
        async with self._db.read() as connection:
            row = (await connection.execute(JOB, {"job_id": job_id})).first()
            if row is None or tenant not in (None, row.tenant):
                return None
            calls = (await connection.execute(ATTEMPTS_OF_JOB, {"job_id": job_id})).all()
        return _view(row, [_attempt(call) for call in calls])

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
    ) -> list[AttemptObject]:
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
        rows = [_attempt(row) for row in await self._db.rows(page, {"after": after})]
        return rows[::-1] if latest else rows

    async def latency_percentiles(self, batch_id: str) -> dict[tuple[str, str], tuple[int, int]]:
        """Median and 95th percentile (ms) by provider and model, of the latest 10,000 results."""
        rows = await self._db.rows(LATEST_LATENCIES, {"batch_id": batch_id})
        by_deployment = defaultdict(list)
        for row in rows:
            by_deployment[row.provider, row.model].append(row.latency_ms)
        return {key: (_percentile(times, 50), _percentile(times, 95)) for key, times in by_deployment.items()}

    async def answer(self, job_id: str) -> str | None:
        """The answer to a job as JSON. None: there is none, or it was pruned."""
        async with self._db.read() as connection:
            body: str | None = (await connection.execute(ANSWER, {"job_id": job_id})).scalar()
            if body is not None and len(body) > BURDEN:
                await burden(connection)
        return body

    async def page(
        self, tenant: str, wanted: JobFilter, *, limit: int, after: str = "", ascending: bool = False
    ) -> list[JobView]:
        """A tenant's jobs, newest first unless `ascending`, without their calls."""
        asked = {"tenant": tenant, "most": limit, **({"after": after} if after else {})}
        return [_view(row, None) for row in await self._db.rows(jobs_page(wanted, after, ascending), asked)]

    async def cancel(self, job_id: str) -> JobState | None:
        """Cancel a job. Returns CANCELLED if it was queued, RUNNING if its worker was asked to stop it, its final
        state if it had ended, or None if there is no such job."""
        tallies = Tallies(UPKEEP)
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
        holder: str | None = await self._db.value(HOLDER, {"job_id": job_id})
        return holder

    async def cancelled_running(self) -> list[str]:
        """Running jobs cancelled by their owner: their workers should stop them."""
        return await self._db.values(CANCELLED_RUNNING)

    async def ended_among(self, ids: Sequence[str]) -> set[str]:
        """The given jobs and batches that have ended."""
        ended: set[str] = set()
        async with self._db.read() as connection:
            for start in range(0, len(ids), ASKED_AT_ONCE):
                asked = {"ids": list(ids[start : start + ASKED_AT_ONCE])}
                ended.update((await connection.execute(ENDED_AMONG, asked)).scalars())
        return ended


def _view(row: Row[Any], calls: list[AttemptObject] | None) -> JobView:
    columns: dict[str, Any] = dict(row._mapping)
    unpriced, unpriced_answer, note = columns.pop("unpriced"), columns.pop("unpriced_answer"), columns.pop("note")
    given = {
        "state": JobState(row.state),
        "priority": Priority(row.priority),
        "metadata": orjson.loads(note) if note else {},
        "put_back_for": from_json(columns.pop("waiting")),
        "answer_bytes": row.answer_bytes or 0,
        "error": orjson.loads(row.error) if row.error else None,
        "spent_usd": None if unpriced else row.spent_usd,
        "cost_usd": None if unpriced_answer else row.cost_usd,
    }
    return JobView(**columns | given, calls=calls)


def _attempt(row: Row[Any]) -> AttemptObject:
    return attempt_object({**row._mapping, "cost_usd": None if row.unpriced else row.cost_usd})


def failure_of(row: Row[Any]) -> FailureClass | None:
    """Of a row with `state` and `failure`; None: the job did not fail."""
    return FailureClass(row.failure or FailureClass.UNKNOWN) if row.state == JobState.FAILED else None


def _percentile(times_ms: Sequence[int], percent: int) -> int:
    ordered = sorted(times_ms)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
