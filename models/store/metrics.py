"""Metrics over the whole ledger, read every few seconds at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, func, literal_column, select

from understudy.models.failure import FailureClass
from understudy.models.ids import id_at
from understudy.models.state import Priority
from understudy.models.store.ledger import CLOCK, Area
from understudy.models.store.sql import NOW, QUEUED, RUNNING, attempt, job, tally, webhook_delivery
from understudy.models.store.tallies import SUMS
from understudy.models.store.work.lanes import LANES, LANES_WITH_BATCHES, MAY_START, SAME_LANE

CLOCKS_APART_S = 120.0


def _first(column: Any, *conditions: Any) -> Any:
    return select(column).where(QUEUED, SAME_LANE, *conditions).order_by(job.c.not_before, job.c.id).limit(1)


READY = (
    select(
        LANES.c.priority,
        _first(job.c.created_at, job.c.not_before == 0).scalar_subquery().label("new_since"),
        _first(job.c.not_before, job.c.not_before > 0, job.c.not_before <= NOW).scalar_subquery().label("due_since"),
        select(func.count())
        .select_from(job)
        .where(QUEUED, SAME_LANE, job.c.not_before <= NOW)
        .scalar_subquery()
        .label("ready"),
    )
    .select_from(LANES_WITH_BATCHES)
    .where(MAY_START)
)
"""For each open lane: the number of jobs that could start now, and since when the first could."""

WAITING_JOBS = (
    select(job.c.priority, func.count().label("jobs"))
    .where(QUEUED, job.c.not_before > literal_column("0"), job.c.not_before > NOW)
    .group_by(job.c.priority)
)
"""The number of jobs put back to a future time."""

TALLIES_SINCE: Select[Any] = (
    select(
        tally.c.minute,
        tally.c.kind,
        tally.c.provider,
        tally.c.model,
        tally.c.outcome,
        *(func.sum(tally.c[name]).label(f"sum_{name}") for name in SUMS),
    )
    .where(tally.c.minute >= bindparam("minute"))
    .group_by(tally.c.minute, tally.c.kind, tally.c.provider, tally.c.model, tally.c.outcome)
)
"""Counts over the whole ledger, by minute."""

DELIVERIES_DUE = select(func.count(), func.min(webhook_delivery.c.created_at)).where(
    webhook_delivery.c.state == literal_column("'pending'")
)
"""The number of undelivered webhooks, and since when the oldest has been waiting."""

RUNNING_BY_WORKER = select(job.c.worker_id, func.count().label("jobs")).where(RUNNING).group_by(job.c.worker_id)
"""Running jobs per worker."""

CALLS_SINCE = (
    select(attempt.c.provider, attempt.c.model, attempt.c.key, attempt.c.failure, func.count().label("calls"))
    .where(attempt.c.id >= bindparam("first"), attempt.c.started_at >= bindparam("since"))
    .group_by(attempt.c.provider, attempt.c.model, attempt.c.key, attempt.c.failure)
)
"""Recent provider calls that have ended, by deployment and outcome."""


@dataclass(frozen=True, slots=True)
class CallCount:
    """Calls of one deployment with the same outcome; `failure` None: answered."""

    provider: str
    model: str
    key: str
    failure: FailureClass | None
    calls: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The queue of one priority: jobs that could start now, how long the first of them has waited, and jobs
    scheduled for later."""

    ready: int = 0
    oldest_ready_s: float = 0.0
    waiting: int = 0


class Metrics(Area):
    async def backlog(self) -> dict[Priority, Backlog]:
        """By priority. Counts index rows: about a second for a few million."""
        async with self._db.read() as connection:
            now = (await connection.execute(CLOCK)).scalar_one()
            ready = (await connection.execute(READY)).all()
            waiting = {row.priority: row.jobs for row in await connection.execute(WAITING_JOBS)}
        return {each: _backlog(each, ready, waiting.get(int(each), 0), now) for each in Priority}

    async def running_by_worker(self) -> dict[str, int]:
        """Running jobs by worker id, without idle workers."""
        return {row.worker_id: row.jobs for row in await self._db.rows(RUNNING_BY_WORKER)}

    async def tallies_since(self, minute: int) -> Sequence[Any]:
        """Counts of this minute (unix seconds // 60) and later, by minute."""
        rows: Sequence[Any] = await self._db.rows(TALLIES_SINCE, {"minute": minute})
        return rows

    async def calls_since(self, since: float) -> list[CallCount]:
        """Provider calls that began after `since` and have ended. For the last minutes only: reads as many rows as
        calls.

        Calls are found by the time in their id, which is the worker's clock: if it is off by more than CLOCKS_APART_S,
        its calls are missing here.
        """
        asked = {"since": since, "first": id_at("att", since - CLOCKS_APART_S)}
        rows = await self._db.rows(CALLS_SINCE, asked)
        return [
            CallCount(row.provider, row.model, row.key, row.failure and FailureClass(row.failure), row.calls)
            for row in rows
        ]

    async def undelivered_webhooks(self) -> tuple[int, float]:
        """The number of pending webhooks, and the seconds that the oldest has been waiting."""
        async with self._db.read() as connection:
            now = (await connection.execute(CLOCK)).scalar_one()
            count, oldest = (await connection.execute(DELIVERIES_DUE)).one()
        return count, max(0.0, now - oldest) if oldest is not None else 0.0


def _backlog(priority: Priority, lanes: Sequence[Any], waiting: int, now: float) -> Backlog:
    mine = [row for row in lanes if row.priority == priority and row.ready]
    since = [at for row in mine for at in (row.new_since, row.due_since) if at is not None]
    return Backlog(sum(row.ready for row in mine), max(0.0, now - min(since)) if since else 0.0, waiting)
