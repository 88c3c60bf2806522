"""Outcomes of a batch's first jobs and of its latest calls: whether it is worth continuing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, Update, bindparam, func, select, update

from understudy.models.failure import FailureClass
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.state import JobState
from understudy.models.store.ledger import Area
from understudy.models.store.outbox import HELD_BATCH, announce_held
from understudy.models.store.sql import GOES_ON, NOW, RUNNING, attempt, batch, job, result, tally
from understudy.models.store.tallies import OF_JOBS
from understudy.models.store.work.jobs import failure_of


def _ended(state: JobState) -> ScalarSelect[Any]:
    counted = select(func.coalesce(func.sum(tally.c.count), 0))
    return counted.where(
        tally.c.batch_id == batch.c.id, tally.c.kind == OF_JOBS, tally.c.outcome == str(state)
    ).scalar_subquery()


_running = select(func.count()).select_from(job).where(RUNNING, job.c.batch_id == batch.c.id).scalar_subquery()

WATCHED = select(
    batch.c.id,
    batch.c.total,
    _running.label("running"),
    _ended(JobState.SUCCEEDED).label("succeeded"),
    _ended(JobState.FAILED).label("failed"),
).where(GOES_ON, ~batch.c.canary_passed)
"""Active batches whose canary is undecided, with their progress."""

PASS_CANARIES = update(batch).where(batch.c.id.in_(bindparam("ids", expanding=True))).values(canary_passed=True)
"""Stop watching these batches."""

FIRST_RESULTS: Select[Any] = (
    select(job.c.state, result.c.failure, result.c.step)
    .join(job, job.c.id == result.c.job_id)
    .where(result.c.batch_id == bindparam("batch_id"))
    .order_by(result.c.created_at, result.c.job_id)
    .limit(bindparam("most"))
)
"""Outcomes of a batch's first jobs to end."""

_newest = select(attempt.c.id).where(attempt.c.batch_id == batch.c.id).order_by(attempt.c.id.desc()).limit(1)

_newest_failure = _newest.with_only_columns(attempt.c.failure)

NEWEST_CALLS = select(
    batch.c.id,
    func.coalesce(_newest.scalar_subquery(), "").label("call_id"),
    _newest_failure.scalar_subquery().label("failure"),
).where(GOES_ON)
"""Active batches with their newest call."""

LATEST_FAILURES = (
    select(attempt.c.failure, attempt.c.provider, attempt.c.model, job.c.state)
    .join(job, job.c.id == attempt.c.job_id)
    .where(attempt.c.batch_id == bindparam("batch_id"), attempt.c.id > bindparam("after"))
    .order_by(attempt.c.id.desc())
    .limit(bindparam("most"))
)
"""Outcomes of a batch's latest calls, and the states of their jobs."""


def _reserve(kind: PauseKind, *conditions: ColumnElement[bool]) -> Update:
    mine = update(batch).where(batch.c.id == bindparam("batch_id"), GOES_ON, *conditions)
    held = mine.values(paused=bindparam("reason"), pause_kind=str(kind), paused_at=NOW)
    return held.returning(*HELD_BATCH, batch.c.paused.label("reason"))


HOLD_CANARY = _reserve(PauseKind.CANARY, ~batch.c.canary_passed)
"""Pause a watched batch, unless it was paused or resumed in the meantime."""

HOLD_FAILING = _reserve(PauseKind.FAILING)
"""Pause a batch, unless it was paused in the meantime."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A batch without a known success, counted in jobs."""

    id: str
    total: int
    running: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class SameFailure:
    """The common failure of some jobs or calls of a batch. `step`: where most of them failed; None if unknown."""

    cls: FailureClass
    step: str | None


class Canary(Area):
    async def watched(self) -> list[Watched]:
        """Active batches whose canary is undecided."""
        return [Watched(**row._mapping) for row in await self._db.rows(WATCHED)]

    async def stop_watching(self, ids: Sequence[str]) -> None:
        """Stop watching these batches."""
        await self._db.change(PASS_CANARIES, {"ids": list(ids)})

    async def first_failure(self, batch_id: str, count: int) -> SameFailure | None:
        """The common failure of the first `count` jobs of a batch to end. None: fewer ended, or not all failed
        alike."""
        async with self._db.read() as connection:
            found = await connection.execute(FIRST_RESULTS, {"batch_id": batch_id, "most": count})
            rows: Sequence[Row[Any]] = found.all()
        classes = {failure_of(row) for row in rows}
        cls = classes.pop() if len(rows) == count and len(classes) == 1 else None
        steps = Counter(row.step for row in rows if row.step is not None)
        return None if cls is None else SameFailure(cls, steps.most_common(1)[0][0] if steps else None)

    async def newest_calls(self) -> dict[str, tuple[str, str | None]]:
        """For each active batch, the id of its newest call ("": none) and how it failed (None: it succeeded)."""
        return {row.id: (row.call_id, row.failure) for row in await self._db.rows(NEWEST_CALLS)}

    async def last_failure(self, batch_id: str, count: int, after: str) -> SameFailure | None:
        """The common failure of the last `count` calls of a batch after an id, if their jobs failed too. None: fewer
        calls, different failures, or some of the jobs continue: another step may still serve them."""
        asked = {"batch_id": batch_id, "most": count, "after": after}
        rows = await self._db.rows(LATEST_FAILURES, asked)
        classes = {row.failure for row in rows}
        jobs_go_on = any(row.state != JobState.FAILED for row in rows)
        if len(rows) < count or len(classes) > 1 or None in classes or jobs_go_on:
            return None
        steps = Counter(f"{row.provider}/{row.model}" for row in rows)
        return SameFailure(FailureClass(classes.pop()), steps.most_common(1)[0][0])

    async def hold_failing(self, batch_id: str, reason: str, *, canary: bool) -> bool:
        """Pause a batch whose jobs fail; `canary`: only while it is watched. False: it was paused or resumed in the
        meantime."""
        statement = HOLD_CANARY if canary else HOLD_FAILING
        async with self._db.write() as connection:
            held = (await connection.execute(statement, {"batch_id": batch_id, "reason": reason})).all()
            await announce_held(connection, held)
        return bool(held)
