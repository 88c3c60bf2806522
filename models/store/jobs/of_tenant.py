"""Jobs as callers over HTTP see and list them; always scoped to their tenant."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, exists, func, literal_column, select

from understudy.models.state import JobState
from understudy.models.store.jobs.history import ATTEMPTS_OF_JOB, priced
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    BURDEN,
    NOW,
    QUEUED,
    RUNNING,
    attempt,
    burden,
    job,
    job_input,
    made_since,
    made_until,
    result,
)

_spent = (
    select(func.coalesce(func.sum(attempt.c.cost_usd), literal_column("0.0")))
    .where(attempt.c.job_id == job.c.id)
    .scalar_subquery()
)

_seen = select(
    job,
    NOW.label("now"),
    job_input.c.extra,
    result.c.status_code,
    case((job.c.state == str(JobState.FAILED), result.c.body)).label("error_body"),
    result.c.error,
    result.c.provider,
    result.c.model,
    _spent.label("spent_usd"),
    exists(select(attempt.c.id).where(attempt.c.job_id == job.c.id, attempt.c.unpriced)).label("unpriced"),
)
_joined = _seen.outerjoin(job_input, job_input.c.job_id == job.c.id).outerjoin(result, result.c.job_id == job.c.id)

SEEN_JOB = _joined.where(job.c.id == bindparam("job_id"), job.c.tenant == bindparam("tenant"))
"""A tenant's job with its result's metadata, without prompt and answer."""

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
    return _joined.where(*matching).order_by(order).limit(bindparam("most"))


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


class JobsOfTenant(Area):
    async def seen(self, tenant: str, job_id: str) -> dict[str, Any] | None:
        """A tenant's job with its `calls` and its result's metadata, without prompt and answer; None: no such job."""
        async with self._db.read() as connection:
            asked = {"tenant": tenant, "job_id": job_id}
            row = (await connection.execute(SEEN_JOB, asked)).mappings().first()
            if row is None:
                return None
            calls = (await connection.execute(ATTEMPTS_OF_JOB, {"job_id": job_id})).mappings().all()
        return {**row, "calls": [priced(call) for call in calls]}

    async def answer(self, job_id: str) -> str | None:
        """The answer to a job as JSON. None: there is none, or it was pruned."""
        async with self._db.read() as connection:
            body: str | None = (await connection.execute(ANSWER, {"job_id": job_id})).scalar()
            if body is not None and len(body) > BURDEN:
                await burden(connection)
        return body

    async def page(
        self, tenant: str, wanted: JobFilter, *, limit: int, after: str = "", ascending: bool = False
    ) -> list[dict[str, Any]]:
        """A tenant's jobs, newest first unless `ascending`, as in `seen` but without their calls."""
        asked = {"tenant": tenant, "most": limit, **({"after": after} if after else {})}
        async with self._db.read() as connection:
            rows = await connection.execute(jobs_page(wanted, after, ascending), asked)
            return [dict(row) for row in rows.mappings()]
