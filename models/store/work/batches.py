"""Batches as people and callers see them: rows with their sums, one by one or page by page."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, bindparam, func, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.ids import id_at
from understudy.models.jobs.pace import NEW_START_S, jobs_per_s
from understudy.models.jobs.pause_reasons import RUN_STOPPED, PauseKind
from understudy.models.jobs.views import ERRORS, OUTPUT, BatchView, DeploymentTally
from understudy.models.jobs.wait_reasons import Waiting, from_json
from understudy.models.state import TERMINAL_STATES, BatchState, JobState, Priority
from understudy.models.store.budgets import granted_to_batch
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, QUEUED, RUNNING, attempt, batch, file, job, shared_names, tally
from understudy.models.store.tallies import ANSWERED, OF_JOBS, SUMS

WAITS_SAMPLE = 2_000
WAITING_HOLDS_S = 10.0

BATCH = select(batch, granted_to_batch.label("granted_usd"), NOW.label("now")).where(
    batch.c.id == bindparam("batch_id")
)
"""A batch's row, the grants on its budget, and the current time."""

BATCHES = (
    select(batch.c.id)
    .where(or_(bindparam("before") == "", batch.c.id < bindparam("before")))
    .order_by(batch.c.id.desc())
    .limit(bindparam("most"))
)
"""Batches, newest first."""

RETRY_OF = select(batch.c.id).where(batch.c.retry_of == bindparam("batch_id")).order_by(batch.c.created_at, batch.c.id)
"""The batches that rerun a batch's failed jobs."""

RETRIED = select(batch.c.id).where(
    batch.c.id == select(batch.c.retry_of).where(batch.c.id == bindparam("batch_id")).scalar_subquery()
)
"""The batch that a retry reruns, if it still exists."""

TALLIES_OF_BATCH = (
    select(
        tally.c.kind,
        tally.c.provider,
        tally.c.model,
        tally.c.outcome,
        *(func.sum(tally.c[name]).label(f"sum_{name}") for name in SUMS),
    )
    .where(tally.c.batch_id == bindparam("batch_id"))
    .group_by(tally.c.kind, tally.c.provider, tally.c.model, tally.c.outcome)
    .order_by(tally.c.provider, tally.c.model)
)
"""The sums of a batch's counts."""

_fallbacks = select(func.coalesce(func.sum(tally.c.fallbacks), 0)).where(
    tally.c.batch_id == batch.c.id, tally.c.kind == OF_JOBS
)

FALLBACKS_OF = select(batch.c.id, batch.c.total, _fallbacks.scalar_subquery().label("fallbacks")).where(
    batch.c.id.in_(bindparam("ids", expanding=True))
)
"""For some batches: the number of jobs, and of those answered by a step other than the first."""

_ended_jobs = select(func.coalesce(func.sum(tally.c.count), 0)).where(
    tally.c.batch_id == batch.c.id, tally.c.kind == OF_JOBS
)

ENDED_OF = select(batch.c.total, _ended_jobs.scalar_subquery().label("ended")).where(
    batch.c.id == bindparam("batch_id")
)
"""The number of jobs of a batch, and of those that have ended."""

ENDED_SINCE = (
    select(tally.c.minute, func.sum(tally.c.count).label("ended"))
    .where(tally.c.batch_id == bindparam("batch_id"), tally.c.kind == OF_JOBS, tally.c.minute >= bindparam("since"))
    .group_by(tally.c.minute)
)
"""The number of jobs of a batch that ended in recent minutes."""

FIRST_CALL_SINCE = (
    select(attempt.c.started_at)
    .where(attempt.c.batch_id == bindparam("batch_id"), attempt.c.id >= bindparam("after"))
    .order_by(attempt.c.id)
    .limit(1)
)
"""The start of the first call of a batch after a given time."""

RUNNING_OF_BATCH = select(func.count()).select_from(job).where(RUNNING, job.c.batch_id == bindparam("batch_id"))
"""The number of claimed jobs of a batch: never more than the fleet has slots."""

WAITS_OF_BATCH = (
    select(job.c.waiting, job.c.not_before)
    .where(QUEUED, job.c.batch_id == bindparam("batch_id"), job.c.not_before > literal_column("0"))
    .limit(WAITS_SAMPLE)
)
"""The wait reasons of some put-back jobs of a batch, with their ends."""

FILES_OF_BATCH = select(file.c.part, file.c.id).where(
    file.c.batch_id == bindparam("batch_id"), or_(file.c.expires_at.is_(None), file.c.expires_at > NOW)
)
"""The output and error files of an ended batch, unless they were deleted."""

LATEST_BATCH = select(batch.c.id).order_by(batch.c.created_at.desc(), batch.c.id.desc()).limit(1)
"""The batch that was submitted last."""


class Batches(Area):
    async def page(self, tenant: str | None = None, limit: int = 20, before: str = "") -> list[BatchView]:
        """A tenant's batches, or all, newest first; `before` is the id of the last one seen."""
        page = BATCHES if tenant is None else BATCHES.where(batch.c.tenant == tenant)
        ids = await self._db.values(page, {"before": before, "most": limit})
        views = [await self.view(each) for each in ids]
        return [view for view in views if view is not None]

    async def fallbacks_of(self, batches: Sequence[str]) -> dict[str, tuple[int, int]]:
        """For each batch: the number of jobs, and of those answered by a step other than the first."""
        rows = await self._db.rows(FALLBACKS_OF, {"ids": list(batches)})
        return {row.id: (row.total, row.fallbacks) for row in rows}

    async def ended_of(self, batch_id: str) -> tuple[int, int]:
        """The number of jobs of a batch, and of those that have ended."""
        row = await self._db.row(ENDED_OF, {"batch_id": batch_id})
        return (0, 0) if row is None else (row.total, row.ended)

    async def view(self, batch_id: str) -> BatchView | None:
        """A batch with its sums; reads as many rows as it has tallies, not jobs."""
        key = {"batch_id": batch_id}
        async with self._db.read() as connection:
            row = (await connection.execute(BATCH, key)).first()
            if row is None:
                return None
            sums = (await connection.execute(TALLIES_OF_BATCH, key)).all()
            running = (await connection.execute(RUNNING_OF_BATCH, key)).scalar_one()
            per_s = await _jobs_per_s(connection, row)
            waits = (await connection.execute(WAITS_OF_BATCH, key)).all()
            files = {each.part: each.id for each in await connection.execute(FILES_OF_BATCH, key)}
            retries = list((await connection.execute(RETRY_OF, key)).scalars())
        return _batch_view(row, sums, running, per_s, waits, files, retries)

    async def root_of(self, batch_id: str) -> str:
        """The original batch of a retry, across the retries in between; for any other batch, itself."""
        while earlier := await self._db.value(RETRIED, {"batch_id": batch_id}):
            batch_id = earlier
        return batch_id

    async def retries_of(self, batch_id: str) -> list[str]:
        """The retries of a batch, their retries, and so on, in this order."""
        found: list[str] = []
        waiting = [batch_id]
        while waiting:
            retries = await self._db.values(RETRY_OF, {"batch_id": waiting.pop(0)})
            found += retries
            waiting += retries
        return found

    async def latest(self, tenant: str | None = None) -> str | None:
        """The batch last submitted by a tenant; None: by anyone."""
        latest = LATEST_BATCH if tenant is None else LATEST_BATCH.where(batch.c.tenant == tenant)
        found: str | None = await self._db.value(latest)
        return found


async def _jobs_per_s(connection: AsyncConnection, row: Row[Any]) -> float:
    batch_id, now = row.id, row.now
    asked = {"batch_id": batch_id, "since": int(now // 60) - 1}
    ended = {row.minute: int(row.ended) for row in await connection.execute(ENDED_SINCE, asked)}
    if not ended:
        return 0.0
    first = {"batch_id": batch_id, "after": id_at("att", now - NEW_START_S)}
    moving_since = (await connection.execute(FIRST_CALL_SINCE, first)).scalar()
    return jobs_per_s(ended, now, moving_since, _latest_pause(row))


def _latest_pause(row: Row[Any]) -> tuple[float, float] | None:
    """Start and end of the latest pause; None while paused, and if it never was."""
    if row.paused is not None or row.paused_at is None or row.resumed_at is None:
        return None
    return row.paused_at, row.resumed_at


def _batch_view(
    row: Row[Any],
    sums: Sequence[Row[Any]],
    running: int,
    per_s: float,
    waits: Sequence[Any],
    files: Mapping[str, str],
    retries: list[str],
) -> BatchView:
    counts, by_deployment = _counts(row, sums, running), _by_deployment(sums)
    pause_kind, paused = _pause(row)
    columns = {name: row._mapping[name] for name in shared_names(BatchView, batch)}
    derived = {
        "state": BatchState(row.state),
        "priority": Priority(row.priority),
        "paused": paused,
        "pause_kind": pause_kind,
        "options": orjson.loads(row.options or "{}"),
        "budget_usd": None if row.budget_usd is None else row.budget_usd + row.granted_usd,
        "waiting": _waiting(row, counts, waits),
    }
    return BatchView(
        **columns | derived,
        retries=retries,
        counts=counts,
        cost_usd=sum(each.cost_usd for each in by_deployment),
        fallbacks=sum(each.fallbacks for each in by_deployment),
        by_deployment=by_deployment,
        recent_per_s=per_s,
        waits=_put_back(row.now, waits),
        output_file_id=files.get(OUTPUT),
        error_file_id=files.get(ERRORS),
        metadata=orjson.loads(row.note),
        errors=None if row.error is None else orjson.loads(row.error),
    )


NOT_HELD = frozenset(map(str, (BatchState.CANCELLING, BatchState.CANCELLED, BatchState.COMPLETED)))


def _put_back(now: float, waits: Sequence[Row[Any]]) -> list[tuple[str, int]]:
    """The wait reasons and how many jobs share each. Due jobs wait to be staged, whatever kept them before."""
    counts = Counter(each.waiting for each in waits if each.not_before > now)
    return [(found.sentence, count) for row, count in counts.most_common() if (found := from_json(row)) is not None]


def _pause(row: Row[Any]) -> tuple[PauseKind | None, str | None]:
    """Why it is paused, or was until its deadline. A batch that was cancelled, or whose last calls ended, is not."""
    if row.state in NOT_HELD:
        return None, None
    if row.paused is not None:
        return PauseKind(row.pause_kind or PauseKind.OWNER), row.paused
    stopped = row.runs_until is not None and row.runs_until <= row.now and row.state == str(BatchState.IN_PROGRESS)
    return (PauseKind.STOPPED, RUN_STOPPED) if stopped else (None, None)


def _counts(row: Row[Any], sums: Sequence[Row[Any]], running: int) -> dict[JobState, int]:
    """Jobs by state. Queued jobs are the remainder: they are not counted, there may be a million."""
    counts = dict.fromkeys(JobState, 0)
    for each in sums:
        if each.kind == OF_JOBS:
            counts[JobState(each.outcome)] += int(each.sum_count)
    open_rows = row.total - sum(counts[state] for state in TERMINAL_STATES)
    return {**counts, JobState.RUNNING: running, JobState.QUEUED: max(0, open_rows - running)}


def _by_deployment(sums: Iterable[Row[Any]]) -> list[DeploymentTally]:
    deployments: dict[tuple[str, str], DeploymentTally] = {}
    for each in sums:
        if each.provider:
            key = (each.provider, each.model)
            _add(deployments.setdefault(key, DeploymentTally(*key)), each)
    return list(deployments.values())


def _waiting(row: Row[Any], counts: Mapping[JobState, int], waits: Sequence[Any]) -> Waiting | None:
    """The planner's latest report, unless it is too old to be current. The planner does not report on a batch whose
    jobs were all put back, or of which only the canary may start and was put back: such a batch waits for the first
    of them."""
    if row.state != str(BatchState.IN_PROGRESS) or _pause(row)[0] is not None:
        return None
    if row.waiting is not None and row.now - row.waiting_at <= WAITING_HOLDS_S:
        return Waiting(**orjson.loads(row.waiting))
    first = min(waits, key=lambda each: each.not_before, default=None)
    others = row.canary_passed and len(waits) < min(counts[JobState.QUEUED], WAITS_SAMPLE)
    if first is None or counts[JobState.RUNNING] or others or first.not_before <= row.now:
        return None
    return from_json(first.waiting, first.not_before)


def _add(to: DeploymentTally, sums: Row[Any]) -> None:
    count = int(sums.sum_count)
    if sums.kind == OF_JOBS:
        to.fallbacks += int(sums.sum_fallbacks) if sums.outcome == JobState.SUCCEEDED else 0
        return
    if sums.outcome == ANSWERED:
        to.answered += count
    else:
        to.failures[sums.outcome] = to.failures.get(sums.outcome, 0) + count
    to.input_tokens += int(sums.sum_input_tokens)
    to.output_tokens += int(sums.sum_output_tokens)
    to.cached_tokens += int(sums.sum_cached_tokens)
    to.reasoning_tokens += int(sums.sum_reasoning_tokens)
    to.cost_usd += float(sums.sum_cost_usd)
    to.unpriced_calls += int(sums.sum_unpriced)
