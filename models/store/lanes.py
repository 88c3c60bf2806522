"""Where jobs wait, read off the index of the queued jobs themselves.

Nothing is written about lanes, so a job that is queued, by whatever path, cannot be without one.
"""

from typing import Any

from sqlalchemy import CTE, ColumnElement, FromClause, ScalarSelect, and_, bindparam, func, or_, select

from understudy.models.records import SINGLE
from understudy.models.store.sql import GOES_ON, QUEUED, batch, job

NAMES = ("batch_id", "tenant", "chain_id", "priority")
"""What a lane is: the first columns of the index `ix_job_ready`, in its order."""


def _first_beyond(lane: CTE, kept: int) -> ScalarSelect[Any]:
    """The id of the first queued job behind a lane among those that share its first `kept` columns."""
    same = [job.c[name] == lane.c[name] for name in NAMES[:kept]]
    further = job.c[NAMES[kept]] > lane.c[NAMES[kept]]
    order = [job.c[name] for name in NAMES[kept:]]
    return select(job.c.id).where(QUEUED, *same, further).order_by(*order).limit(1).correlate(lane).scalar_subquery()


def _lanes() -> CTE:
    columns = [job.c[name] for name in NAMES]
    first = select(*columns).where(QUEUED).order_by(*columns).limit(1).subquery("first_lane")
    lane = select(first).cte("lane", recursive=True)
    # one column after the other: SQLite searches an index with no more than the first column of a row comparison
    following = func.coalesce(*(_first_beyond(lane, kept) for kept in reversed(range(len(NAMES)))))
    next_job = job.alias("next_job")
    return lane.union_all(select(*(next_job.c[name] for name in NAMES)).join(lane, next_job.c.id == following))


LANES = _lanes()
"""The lanes that have queued jobs: a few steps down the index from each to the next, however many jobs are between."""

SAME_LANE: ColumnElement[bool] = and_(*(job.c[name] == LANES.c[name] for name in NAMES))
"""The job belongs to the lane of the statement around it."""

IN_LANE: ColumnElement[bool] = and_(*(job.c[name] == bindparam(name) for name in NAMES))
"""The job belongs to the lane whose columns are bound."""

LANES_WITH_BATCHES: FromClause = LANES.outerjoin(batch, batch.c.id == LANES.c.batch_id)
"""The lanes, each with the batch that it is of, if any."""

MAY_START: ColumnElement[bool] = or_(LANES.c.batch_id == SINGLE, GOES_ON)
"""The jobs of a lane may start: they are single, or their batch goes on."""
