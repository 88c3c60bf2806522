"""Limits and rules of tenants, and their usage: queued jobs, jobs per minute, dollars per month, stored bytes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Row, and_, bindparam, case, delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.costs.budgets import of_tenant
from understudy.models.jobs.submission import SINGLE
from understudy.models.routing.data_rules import Rules, Tags
from understudy.models.state import OPEN_BATCH_STATES, BatchState
from understudy.models.store.audit import changes, record_act
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    NOW,
    QUEUED,
    RUNNING,
    batch,
    budget_grant,
    file,
    idempotency,
    job,
    replacing,
    tally,
    tenant,
    tenant_tally,
    upsert,
)
from understudy.models.store.tallies import ACCEPTED, ACCEPTED_PERIOD_S, OF_JOBS, SPENT, SPENT_PERIOD_S, Tallies
from understudy.models.tenants import StoreContent, TenantLimits, TenantStore, TenantUse

TENANTS = select(tenant).order_by(tenant.c.name)
"""The tenants with a row."""

LIMITS = (
    *("jobs_per_minute", "queued_jobs", "usd_per_month", "weight", "store_content"),
    *("stored_bytes", "open_batches"),
)

RULES = ("require", "forbid", "allow")

LIMITS_OF = select(tenant).where(tenant.c.name == bindparam("name"))
"""A tenant's limits and rules."""

PUT_TENANT = replacing(upsert(tenant).values(created_at=NOW), LIMITS + RULES)
"""Replace a tenant's limits and rules."""

PUT_CONTENT = replacing(upsert(tenant).values(created_at=NOW), ["store_content"])
"""Set how long a tenant's content is kept; its limits are unchanged."""

MINUTES_KEPT = 10
DRAIN_MINUTES = 2

_ended = (
    select(func.coalesce(func.sum(tally.c.count), 0))
    .where(tally.c.batch_id == batch.c.id, tally.c.kind == OF_JOBS)
    .scalar_subquery()
)

_running = (
    select(func.count())
    .select_from(job)
    .where(RUNNING, job.c.batch_id == batch.c.id)
    .correlate(batch)
    .scalar_subquery()
)

_unfilled = and_(batch.c.state == str(BatchState.VALIDATING), batch.c.total == 0)

OPEN_BATCHES = (
    select(
        batch.c.tenant,
        case((_unfilled, func.coalesce(file.c.lines, 0)), else_=batch.c.total).label("total"),
        (_ended + _running).label("past"),
    )
    .select_from(batch)
    .outerjoin(file, file.c.id == batch.c.input_file_id)
    .where(batch.c.state.in_([str(state) for state in sorted(OPEN_BATCH_STATES)]))
)
"""For each open batch: its number of jobs, existing or expected, and of those no longer queued. Rows are not
counted: ended jobs have tallies, and only as many run as the fleet has slots."""

QUEUED_SINGLES = (
    select(job.c.tenant, func.count().label("jobs"))
    .where(QUEUED, job.c.batch_id == literal_column(f"'{SINGLE}'"))
    .group_by(job.c.tenant)
)
"""Queued single jobs by tenant, counted from an index."""

_tally_of = and_(tenant_tally.c.tenant == bindparam("name"))


def _sum(what: Any, kind: str, *conditions: Any) -> Any:
    found = select(func.coalesce(func.sum(what), 0)).where(_tally_of, tenant_tally.c.kind == kind, *conditions)
    return found.scalar_subquery()


USE = select(
    _sum(tenant_tally.c.count, ACCEPTED, tenant_tally.c.period == bindparam("minute")).label("this_minute"),
    _sum(tenant_tally.c.count, ACCEPTED, tenant_tally.c.period == bindparam("minute") - 1).label("last_minute"),
    _sum(tenant_tally.c.cost_usd, SPENT, tenant_tally.c.period >= bindparam("first_day")).label("usd"),
    select(func.coalesce(func.sum(budget_grant.c.usd), 0))
    .where(budget_grant.c.subject == bindparam("who"), budget_grant.c.period == bindparam("month"))
    .scalar_subquery()
    .label("granted_usd"),
)
"""A tenant's usage: jobs of two minutes, dollars since the start of the month, and grants on its budget."""

FORGET_MINUTES = delete(tenant_tally).where(
    _tally_of, tenant_tally.c.kind == ACCEPTED, tenant_tally.c.period < bindparam("minute")
)
"""Minute counters of a tenant that are no longer needed."""

_open = batch.c.state.in_([str(state) for state in sorted(OPEN_BATCH_STATES)])

_is_read = and_(batch.c.state == str(BatchState.VALIDATING), file.c.bytes > batch.c.stored_bytes)

_answers = select(func.coalesce(func.sum(tally.c.bytes), 0)).where(tally.c.batch_id == batch.c.id).scalar_subquery()

_one = func.coalesce(file.c.bytes, 0) + ROW_BYTES

_of_batch = case((_is_read, file.c.bytes), else_=batch.c.stored_bytes) + _answers + ROW_BYTES

_batches = batch.c.tenant == bindparam("name")

STORED = select(
    select(func.coalesce(func.sum(_one), 0))
    .where(file.c.tenant == bindparam("name"), file.c.batch_id.is_(None))
    .scalar_subquery()
    .label("uploads"),
    select(func.coalesce(func.sum(_of_batch), 0))
    .select_from(batch)
    .outerjoin(file, file.c.id == batch.c.input_file_id)
    .where(_batches)
    .scalar_subquery()
    .label("batches"),
    select(func.coalesce(func.sum(job.c.bytes + func.coalesce(job.c.answer_bytes, 0)), 0))
    .where(job.c.tenant == bindparam("name"), job.c.batch_id == literal_column(f"'{SINGLE}'"))
    .scalar_subquery()
    .label("singles"),
    select(func.coalesce(func.sum(idempotency.c.answer_bytes), 0))
    .where(idempotency.c.tenant == bindparam("name"), idempotency.c.answer.is_not(None))
    .scalar_subquery()
    .label("remembered"),
    select(func.count())
    .select_from(batch)
    .where(batch.c.tenant == bindparam("name"), _open)
    .scalar_subquery()
    .label("open"),
)
"""Bytes stored for a tenant, and its unfinished batches. A batch whose file is being read counts with the whole file;
answers are counted in the tallies, and removed ones are subtracted from the batch."""

ENDED_LATELY = select(func.coalesce(func.sum(tally.c.count), 0)).where(
    tally.c.minute >= bindparam("minute"), tally.c.kind == OF_JOBS
)
"""Jobs of the whole ledger that ended in this minute and later."""


class Tenants(Area):
    async def limits(self) -> list[TenantLimits]:
        """The tenants with limits."""
        return [limits_of(row) for row in await self._db.rows(TENANTS)]

    async def rules(self, name: str) -> Rules:
        """The rules for every job of a tenant accepted from now on."""
        async with self._db.read() as connection:
            return (await _limits(connection, name)).rules

    async def set_limits(self, limits: TenantLimits, *, actor: str) -> None:
        """Replace a tenant's limits. API processes notice within seconds."""
        row = {"name": limits.name, **{each: getattr(limits, each) for each in LIMITS}}
        row |= {each: orjson.dumps(tags).decode() if (tags := getattr(limits, each)) else None for each in RULES}
        row["allow"] = None if limits.allow is None else orjson.dumps(limits.allow).decode()
        async with self._db.write() as connection:
            before = await _limits(connection, limits.name)
            await connection.execute(PUT_TENANT, row)
            old, new = changes(asdict(before), asdict(limits))
            await record_act(connection, actor, limits.name, "tenant.set", limits.name, old, new)

    async def set_store_content(self, tenant: str, keep: StoreContent | None, *, actor: str) -> None:
        """How long a tenant's prompts and answers are kept; None: the installation's setting."""
        row = {"name": tenant, "store_content": keep, "weight": TenantLimits(tenant).weight}
        async with self._db.write() as connection:
            before = await _limits(connection, tenant)
            await connection.execute(PUT_CONTENT, row)
            old, new = {"store_content": before.store_content}, {"store_content": keep}
            await record_act(connection, actor, tenant, "tenant.set", tenant, old, new)

    async def queued(self) -> dict[str, int]:
        """Queued jobs by tenant.

        The file of a batch being validated counts in full as soon as the batch exists. A batch that `run` or `submit`
        is still writing counts once it is opened.
        """
        queued: Counter[str] = Counter()
        async with self._db.read() as connection:
            for row in await connection.execute(OPEN_BATCHES):
                queued[row.tenant] += max(0, int(row.total) - int(row.past))
            for row in await connection.execute(QUEUED_SINGLES):
                queued[row.tenant] += row.jobs
        return queued

    async def use(self, name: str, at: float) -> TenantUse:
        """A tenant's limits and, if it has any, its usage at this time."""
        minute = int(at // ACCEPTED_PERIOD_S)
        async with self._db.read() as connection:
            row = (await connection.execute(LIMITS_OF, {"name": name})).first()
            limits = TenantLimits(name) if row is None else limits_of(row)
            budget = of_tenant(name, at)
            asked = {"name": name, "minute": minute, "first_day": first_day_of_month(at)}
            asked |= {"who": budget.who, "month": budget.period}
            used = (await connection.execute(USE, asked)).one()
        return TenantUse(
            limits, minute, int(used.this_minute), int(used.last_minute), float(used.usd), float(used.granted_usd)
        )

    async def stored(self, name: str) -> TenantStore:
        """A tenant's stored data. Data written by earlier versions counts with its rows at most."""
        row = await self._db.row(STORED, {"name": name})
        assert row is not None  # sums of nothing are a row, too
        stored = int(row.uploads) + int(row.batches) + int(row.singles) + int(row.remembered)
        return TenantStore(max(0, stored), int(row.open))

    async def record_accepted(self, name: str, writer: str, jobs_by_minute: Mapping[int, int]) -> None:
        """Add the jobs accepted by an API process, and delete counters of minutes long past."""
        tallies = Tallies(writer)
        for minute, jobs in jobs_by_minute.items():
            tallies.accepted(name, jobs, minute * ACCEPTED_PERIOD_S)
        oldest = max(jobs_by_minute, default=0) - MINUTES_KEPT
        async with self._db.write() as connection:
            await tallies.write(connection)
            await connection.execute(FORGET_MINUTES, {"name": name, "minute": oldest})

    async def ended_per_s(self, at: float) -> float:
        """The recent rate at which jobs of the whole ledger end, per second."""
        minute = int(at // 60) - DRAIN_MINUTES + 1
        ended = int(await self._db.value(ENDED_LATELY, {"minute": minute}))
        return ended / max(1.0, at - minute * 60)


async def _limits(connection: AsyncConnection, name: str) -> TenantLimits:
    row = (await connection.execute(LIMITS_OF, {"name": name})).first()
    return TenantLimits(name) if row is None else limits_of(row)


def limits_of(row: Row[Any]) -> TenantLimits:
    limits: dict[str, Any] = {each: getattr(row, each) for each in LIMITS}
    allow = None if row.allow is None else tuple(orjson.loads(row.allow))
    return TenantLimits(row.name, **limits, require=_tags(row.require), forbid=_tags(row.forbid), allow=allow)


def _tags(written: str | None) -> Tags:
    return {} if written is None else {tag: tuple(values) for tag, values in orjson.loads(written).items()}


def first_day_of_month(at: float) -> int:
    """The first day (unix seconds // 86400) of the calendar month (UTC) of this time."""
    month = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(month.timestamp() // SPENT_PERIOD_S)
