"""What the planner reads: lanes, the jobs at their heads, and when the next one is due."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Row, Text, Update, bindparam, func, literal_column, or_, select, update

from models.records import SINGLE, Head, Lane, Waiting
from models.state import BatchState, Priority
from models.store.ledger import Ledger
from models.store.sql import NOW, QUEUED, RUNNING, Given, batch, in_lane, job, lane

OPEN_LANES = (
    select(lane)
    .outerjoin(batch, batch.c.id == lane.c.batch_id)
    .where(
        or_(
            lane.c.batch_id == SINGLE,
            (batch.c.state == str(BatchState.IN_PROGRESS)) & batch.c.paused.is_(None),
        )
    )
    .order_by(lane.c.batch_id, lane.c.tenant, lane.c.chain_id, lane.c.priority)
)
"""The lanes whose rows may start: of batches in progress that nobody holds, and of single jobs."""

DUE_HEADS = (
    select(job.c.id, job.c.tokens, job.c.max_output_tokens)
    .where(QUEUED, in_lane(), job.c.not_before > 0, job.c.not_before <= NOW, job.c.expires_at > NOW)
    .order_by(job.c.not_before, job.c.id)
    .limit(bindparam("most"))
)
"""The jobs of a lane that were put back and whose time has come, longest due first."""

NEW_HEADS = (
    select(job.c.id, job.c.tokens, job.c.max_output_tokens)
    .where(QUEUED, in_lane(), job.c.not_before == 0, job.c.expires_at > NOW)
    .order_by(job.c.id)
    .limit(bindparam("most"))
)
"""The jobs of a lane that wait for no time, oldest first."""

NEXT_DUE = select(func.min(job.c.not_before)).where(
    QUEUED, job.c.not_before > literal_column("0"), job.c.not_before > NOW
)
"""When the next put-back job may start."""

QUEUED_UP_TO = select(func.count()).select_from(
    select(job.c.id).where(QUEUED, in_lane()).limit(bindparam("most")).subquery()
)
"""How many jobs of a lane are queued, counted no further than asked."""

OPEN_AMONG = select(job.c.id, *(job.c[each.name] for each in lane.columns)).where(
    job.c.id.in_(bindparam("ids", expanding=True)), or_(QUEUED, RUNNING)
)
"""Those of some jobs that have not ended, with their lanes."""


@cache
def say_waiting(dialect: str) -> tuple[Update, Given]:
    """Write down what some batches wait for; nothing: they move."""
    given = Given(dialect, {"id": Text(), "waiting": Text()})
    new = given.source.c
    return update(batch).where(batch.c.id == new.id).values(waiting=new.waiting, waiting_at=NOW), given


class Planning(Ledger):
    async def lanes(self) -> list[Lane]:
        """The lanes whose jobs may start. Some may have nothing queued."""
        async with self._db.read() as connection:
            return [_lane(row) for row in await connection.execute(OPEN_LANES)]

    async def heads(self, lane: Lane, limit: int) -> list[Head]:
        """The jobs of a lane that may start now: those put back and due first, then the others by age."""
        found: list[Head] = []
        async with self._db.read() as connection:
            for statement in (DUE_HEADS, NEW_HEADS):
                rows = await connection.execute(statement, {**_columns(lane), "most": limit - len(found)})
                found += [Head(row.id, row.tokens, row.max_output_tokens) for row in rows]
        return found

    async def next_due(self) -> float | None:
        """When the next job that was put back may start; None when none waits for a time to come."""
        async with self._db.read() as connection:
            due: float | None = (await connection.execute(NEXT_DUE)).scalar()
            return due

    async def queued_count(self, lane: Lane, cap: int) -> int:
        """How many jobs of the lane are queued, whether due or not, but at most `cap`."""
        async with self._db.read() as connection:
            return (await connection.execute(QUEUED_UP_TO, {**_columns(lane), "most": cap})).scalar_one()

    async def say_waiting(self, batches: Mapping[str, Waiting | None]) -> None:
        """Say what batches wait for, now; None for one that moves again."""
        rows = [
            {"id": batch_id, "waiting": None if what is None else orjson.dumps(asdict(what)).decode()}
            for batch_id, what in batches.items()
        ]
        statement, given = say_waiting(self._db.dialect)
        async with self._db.write() as connection:
            await connection.execute(statement, given.bind(rows))

    async def existing(self, ids: Sequence[str]) -> dict[str, Lane]:
        """Those of the jobs that are queued or running, with their lanes. A ticket of any other is void."""
        if not ids:
            return {}
        async with self._db.read() as connection:
            return {row.id: _lane(row) for row in await connection.execute(OPEN_AMONG, {"ids": list(ids)})}


def _lane(row: Row[Any]) -> Lane:
    return Lane(row.batch_id, row.tenant, row.chain_id, Priority(row.priority))


def _columns(of: Lane) -> dict[str, str | int]:
    return {
        "batch_id": of.batch_id,
        "tenant": of.tenant,
        "chain_id": of.chain_id,
        "priority": int(of.priority),
    }
