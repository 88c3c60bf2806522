"""What the planner reads (lanes and their first jobs) and what it reports on waiting batches."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    Row,
    Text,
    Update,
    bindparam,
    case,
    func,
    literal_column,
    select,
    update,
)

from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.routing.chain import Chain
from understudy.models.state import Priority
from understudy.models.store.ledger import CHAIN_DOCUMENT, Area
from understudy.models.store.paging import octets
from understudy.models.store.sql import NOW, QUEUED, RUNNING, JsonRows, batch, chain, job, tenant
from understudy.models.store.work.lanes import IN_LANE, LANES, LANES_WITH_BATCHES, MAY_START, SAME_LANE

OPEN_LANES = select(LANES).select_from(LANES_WITH_BATCHES).where(MAY_START).order_by(*LANES.columns)
"""The lanes whose rows may start: of active batches that are not paused, and of single jobs."""

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
"""For each lane that may start: the number of due jobs, from an index alone, and the weights of its batch and
tenant."""

DUE_HEADS = (
    select(job.c.id, job.c.tokens, job.c.max_output_tokens)
    .where(QUEUED, IN_LANE, job.c.not_before > 0, job.c.not_before <= NOW, job.c.expires_at > NOW)
    .order_by(job.c.not_before, job.c.id)
    .limit(bindparam("most"))
)
"""Put-back jobs of a lane that are due, longest due first."""

NEW_HEADS = (
    select(job.c.id, job.c.tokens, job.c.max_output_tokens)
    .where(QUEUED, IN_LANE, job.c.not_before == 0, job.c.expires_at > NOW)
    .order_by(job.c.id)
    .limit(bindparam("most"))
)
"""Jobs of a lane without a start time, oldest first."""

READ_AT_ONCE = 500

SMALL_CHAIN_BYTES = 64 * 1024

SMALL_CHAINS = select(
    chain.c.id, case((octets(chain.c.document) <= SMALL_CHAIN_BYTES, chain.c.document)).label("document")
).where(chain.c.id.in_(bindparam("ids", expanding=True)))
"""Some chains; of those that are long, only that they exist."""

URGENT_RUNNING = (
    select(job.c.tenant, func.count().label("running"))
    .where(RUNNING, job.c.priority < int(Priority.BULK))
    .group_by(job.c.tenant)
)
"""Running non-bulk jobs per tenant."""


@cache
def say_waiting(dialect: str) -> tuple[Update, JsonRows]:
    """Record what some batches wait for; null: they make progress."""
    given = JsonRows(dialect, {"id": Text(), "waiting": Text()})
    new = given.source.c
    return update(batch).where(batch.c.id == new.id).values(waiting=new.waiting, waiting_at=NOW), given


@dataclass(frozen=True, slots=True)
class Lane:
    """The queued jobs of one batch (or of one tenant's single jobs) that share a chain: the unit of fair sharing."""

    batch_id: str
    tenant: str
    chain_id: str
    priority: Priority


@dataclass(frozen=True, slots=True)
class OpenLane:
    """A lane with jobs that may start now, and its share.

    `ready` counts them, including those with tickets, up to the requested maximum.
    """

    lane: Lane
    ready: int
    batch_weight: float = 1.0
    tenant_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Head:
    """A queued job that may start now, as the planner sees it."""

    id: str
    tokens: int
    max_output_tokens: int = 0  # 0: the request does not say


class Planning(Area):
    async def lanes(self) -> list[Lane]:
        """The lanes with queued jobs, due or not, whose batch allows starts."""
        return [_lane(row) for row in await self._db.rows(OPEN_LANES)]

    async def ready_lanes(self, cap: int) -> list[OpenLane]:
        """The lanes with jobs that may start now, counted up to `cap` each."""
        return [
            OpenLane(_lane(row), row.ready, row.batch_weight or 1.0, row.tenant_weight or 1.0)
            for row in await self._db.rows(READY_LANES, {"most": cap})
            if row.ready
        ]

    async def chains(self, ids: Collection[str]) -> dict[str, Chain]:
        """Chains as plans need them, without the texts and lists that callers wrote into their steps. Those that are
        gone, with their last job, are left out."""
        found: dict[str, Chain] = {}
        wanted = sorted(ids)
        async with self._db.read() as connection:
            for start in range(0, len(wanted), READ_AT_ONCE):
                some = {"ids": wanted[start : start + READ_AT_ONCE]}
                for row in (await connection.execute(SMALL_CHAINS, some)).all():
                    document = row.document
                    if document is None:
                        document = (await connection.execute(CHAIN_DOCUMENT, {"chain_id": row.id})).scalar()
                    if document is not None:
                        found[row.id] = _for_plans(Chain.model_validate(orjson.loads(document)))
        return found

    async def heads(self, lane: Lane, limit: int) -> list[Head]:
        """The jobs of a lane that may start now: first due put-back jobs, then the others by age."""
        found: list[Head] = []
        of = {**asdict(lane), "priority": int(lane.priority)}
        async with self._db.read() as connection:
            for statement in (DUE_HEADS, NEW_HEADS):
                rows = await connection.execute(statement, {**of, "most": limit - len(found)})
                found += [Head(row.id, row.tokens, row.max_output_tokens) for row in rows]
        return found

    async def urgent_running(self) -> dict[str, int]:
        """Running non-bulk jobs by tenant."""
        return {row.tenant: row.running for row in await self._db.rows(URGENT_RUNNING)}

    async def say_waiting(self, batches: Mapping[str, Waiting | None]) -> None:
        """Record what batches currently wait for; None for one that makes progress again."""
        rows = [
            {"id": batch_id, "waiting": None if what is None else orjson.dumps(asdict(what)).decode()}
            for batch_id, what in batches.items()
        ]
        statement, given = say_waiting(self._db.dialect)
        await self._db.change(statement, given.bind(rows))


def _for_plans(whole: Chain) -> Chain:
    steps = [
        step.model_copy(
            update={"params": {name: value for name, value in step.params.items() if isinstance(value, int | float)}}
        )
        for step in whole.steps
    ]
    return whole.model_copy(update={"steps": tuple(steps)})


def _lane(row: Row[Any]) -> Lane:
    return Lane(row.batch_id, row.tenant, row.chain_id, Priority(row.priority))
