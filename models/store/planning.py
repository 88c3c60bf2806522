"""What the planner reads, lanes and the jobs at their heads, and what it says of batches that wait."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Row, Text, Update, bindparam, func, literal_column, select, update

from understudy.models.records import Head, Lane, OpenLane, Waiting
from understudy.models.state import Priority
from understudy.models.store.lanes import IN_LANE, LANES, LANES_WITH_BATCHES, MAY_START, SAME_LANE
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, QUEUED, RUNNING, JsonRows, batch, job, tenant

OPEN_LANES = select(LANES).select_from(LANES_WITH_BATCHES).where(MAY_START).order_by(*LANES.columns)
"""The lanes whose rows may start: of batches in progress that nobody holds, and of single jobs."""

_ready = (
    select(literal_column("1"))
    .where(QUEUED, SAME_LANE, job.c.not_before <= NOW)
    .limit(bindparam("most"))
    .correlate(LANES)
    .subquery()
)
READY_LANES = (
    select(
        LANES,
        batch.c.weight.label("batch_weight"),
        tenant.c.weight.label("tenant_weight"),
        select(func.count()).select_from(_ready).scalar_subquery().label("ready"),
    )
    .select_from(LANES_WITH_BATCHES.outerjoin(tenant, tenant.c.name == LANES.c.tenant))
    .where(MAY_START)
    .order_by(*LANES.columns)
)
"""Of each lane whose rows may start: how many are due, by an index alone, and the weights of its batch and tenant."""

DUE_HEADS = (
    select(job.c.id, job.c.tokens, job.c.max_output_tokens)
    .where(QUEUED, IN_LANE, job.c.not_before > 0, job.c.not_before <= NOW, job.c.expires_at > NOW)
    .order_by(job.c.not_before, job.c.id)
    .limit(bindparam("most"))
)
"""The jobs of a lane that were put back and whose time has come, longest due first."""

NEW_HEADS = (
    select(job.c.id, job.c.tokens, job.c.max_output_tokens)
    .where(QUEUED, IN_LANE, job.c.not_before == 0, job.c.expires_at > NOW)
    .order_by(job.c.id)
    .limit(bindparam("most"))
)
"""The jobs of a lane that wait for no time, oldest first."""

URGENT_RUNNING = (
    select(job.c.tenant, func.count().label("running"))
    .where(RUNNING, job.c.priority < int(Priority.BULK))
    .group_by(job.c.tenant)
)
"""How many jobs of each tenant that are no bulk are under way."""


@cache
def say_waiting(dialect: str) -> tuple[Update, JsonRows]:
    """Write down what some batches wait for; nothing: they move."""
    given = JsonRows(dialect, {"id": Text(), "waiting": Text()})
    new = given.source.c
    return update(batch).where(batch.c.id == new.id).values(waiting=new.waiting, waiting_at=NOW), given


class Planning(Area):
    async def lanes(self) -> list[Lane]:
        """The lanes with queued jobs, due or not, that their batch allows to start."""
        async with self._db.read() as connection:
            return [_lane(row) for row in await connection.execute(OPEN_LANES)]

    async def ready_lanes(self, cap: int) -> list[OpenLane]:
        """The lanes that have jobs which may start now, up to `cap` of each counted."""
        async with self._db.read() as connection:
            rows = await connection.execute(READY_LANES, {"most": cap})
            return [
                OpenLane(_lane(row), row.ready, row.batch_weight or 1.0, row.tenant_weight or 1.0)
                for row in rows
                if row.ready
            ]

    async def heads(self, lane: Lane, limit: int) -> list[Head]:
        """The jobs of a lane that may start now: those put back and due first, then the others by age."""
        found: list[Head] = []
        async with self._db.read() as connection:
            for statement in (DUE_HEADS, NEW_HEADS):
                rows = await connection.execute(statement, {**_columns(lane), "most": limit - len(found)})
                found += [Head(row.id, row.tokens, row.max_output_tokens) for row in rows]
        return found

    async def urgent_running(self) -> dict[str, int]:
        """The jobs under way that are not bulk, by tenant."""
        async with self._db.read() as connection:
            return {row.tenant: row.running for row in await connection.execute(URGENT_RUNNING)}

    async def say_waiting(self, batches: Mapping[str, Waiting | None]) -> None:
        """Say what batches wait for, now; None for one that moves again."""
        rows = [
            {"id": batch_id, "waiting": None if what is None else orjson.dumps(asdict(what)).decode()}
            for batch_id, what in batches.items()
        ]
        statement, given = say_waiting(self._db.dialect)
        async with self._db.write() as connection:
            await connection.execute(statement, given.bind(rows))


def _lane(row: Row[Any]) -> Lane:
    return Lane(row.batch_id, row.tenant, row.chain_id, Priority(row.priority))


def _columns(of: Lane) -> dict[str, str | int]:
    return {
        "batch_id": of.batch_id,
        "tenant": of.tenant,
        "chain_id": of.chain_id,
        "priority": int(of.priority),
    }
