"""Lanes of waiting jobs, read from the index of queued jobs itself.

Lanes are not stored, so a job queued by any path cannot be without one.
"""

from typing import Any

from sqlalchemy import CTE, ColumnElement, FromClause, ScalarSelect, and_, bindparam, func, or_, select

from understudy.models.jobs.submission import SINGLE
from understudy.models.store.sql import GOES_ON, QUEUED, batch, job

NAMES = ("batch_id", "tenant", "chain_id", "priority")
"""The columns of a lane: the first ones of the index `ix_job_ready`, in order."""


def _first_beyond(lane: CTE, kept: int) -> ScalarSelect[Any]:
    """The id of the first queued job after a lane among those that share its first `kept` columns."""
    same = [job.c[name] == lane.c[name] for name in NAMES[:kept]]
    further = job.c[NAMES[kept]] > lane.c[NAMES[kept]]
    order = [job.c[name] for name in NAMES[kept:]]
    return select(job.c.id).where(QUEUED, *same, further).order_by(*order).limit(1).correlate(lane).scalar_subquery()


def _lanes() -> CTE:
    columns = [job.c[name] for name in NAMES]
    first = select(*columns).where(QUEUED).order_by(*columns).limit(1).subquery("first_lane")
    lane = select(first).cte("lane", recursive=True)
    # column by column: SQLite uses only the first column of a row comparison for an index search
    following = func.coalesce(*(_first_beyond(lane, kept) for kept in reversed(range(len(NAMES)))))
    next_job = job.alias("next_job")
    return lane.union_all(select(*(next_job.c[name] for name in NAMES)).join(lane, next_job.c.id == following))


LANES = _lanes()
"""The lanes with queued jobs: a few index searches from each to the next, however many jobs are in between."""

SAME_LANE: ColumnElement[bool] = and_(*(job.c[name] == LANES.c[name] for name in NAMES))
"""The job belongs to the lane of the enclosing statement."""

IN_LANE: ColumnElement[bool] = and_(*(job.c[name] == bindparam(name) for name in NAMES))
"""The job belongs to the lane whose columns are bound."""

LANES_WITH_BATCHES: FromClause = LANES.outerjoin(batch, batch.c.id == LANES.c.batch_id)
"""The lanes, each with its batch, if any."""

MAY_START: ColumnElement[bool] = or_(LANES.c.batch_id == SINGLE, GOES_ON)
"""The jobs of a lane may start: they are single, or their batch is active."""
