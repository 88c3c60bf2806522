"""Budgets in the ledger: limits, grants and spending."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Text, bindparam, delete, exists, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.costs.budgets import (
    BATCH,
    FOR_LIFE,
    TENANT,
    TOLERANCE_USD,
    BudgetKey,
    BudgetRecord,
    of_batch,
    of_tenant,
)
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.state import OPEN_BATCH_STATES, BatchState
from understudy.models.store.ledger import Area
from understudy.models.store.outbox import HELD_BATCH, announce_held, announce_resumed
from understudy.models.store.sql import (
    GOES_ON,
    NOW,
    RUNNING,
    BulkInsert,
    batch,
    budget_grant,
    clean,
    job,
    provider_tally,
    tally,
    tenant,
    tenant_tally,
)
from understudy.models.store.tallies import OF_ATTEMPTS, SPENT
from understudy.models.store.work.lanes import LANES

_names: BindParameter[Any] = bindparam("names", expanding=True)

WITH_OPEN_BUDGET = select(batch.c.id).where(GOES_ON, batch.c.budget_usd.is_not(None))
"""Active batches with a budget."""

TENANTS_WITH_BUDGET = select(tenant.c.name).where(
    tenant.c.usd_per_month.is_not(None), tenant.c.name.in_(select(LANES.c.tenant))
)
"""Tenants with a monthly budget and queued work."""

BUDGETS_OF_BATCHES = select(
    batch.c.id.label("name"),
    batch.c.budget_usd.label("base_usd"),
    select(func.coalesce(func.sum(tally.c.cost_usd), 0.0))
    .where(tally.c.batch_id == batch.c.id, tally.c.kind == OF_ATTEMPTS)
    .scalar_subquery()
    .label("spent_usd"),
).where(batch.c.id.in_(_names))
"""Budget and spending of some batches."""

BUDGETS_OF_TENANTS = select(tenant.c.name, tenant.c.usd_per_month.label("base_usd")).where(tenant.c.name.in_(_names))
"""The monthly budgets of some tenants."""

SPENT_BY_TENANTS = (
    select(tenant_tally.c.tenant.label("name"), func.sum(tenant_tally.c.cost_usd).label("spent_usd"))
    .where(
        tenant_tally.c.tenant.in_(_names),
        tenant_tally.c.kind == SPENT,
        tenant_tally.c.period >= bindparam("first"),
        tenant_tally.c.period < bindparam("end"),
    )
    .group_by(tenant_tally.c.tenant)
)
"""Spending of some tenants over some days."""

SPENT_AT_PROVIDERS = (
    select(provider_tally.c.provider.label("name"), func.sum(provider_tally.c.cost_usd).label("spent_usd"))
    .where(
        provider_tally.c.provider.in_(_names),
        provider_tally.c.day >= bindparam("first"),
        provider_tally.c.day < bindparam("end"),
    )
    .group_by(provider_tally.c.provider)
)
"""Spending at some providers over some days."""

GRANTS = select(budget_grant).where(budget_grant.c.subject.in_(_names))
"""All grants on the budgets of some subjects."""

ADD_GRANT = BulkInsert(budget_grant, conflict="added", adds=("usd",))
"""Grant money on top of a budget."""

granted_to_batch = (
    select(func.coalesce(func.sum(budget_grant.c.usd), 0.0))
    .where(budget_grant.c.subject == literal(f"{BATCH}:", Text) + batch.c.id, budget_grant.c.period == FOR_LIFE)
    .correlate(batch)
    .scalar_subquery()
)
"""Grants on a batch's budget."""

PAUSE_SPENT = (
    update(batch)
    .where(
        batch.c.id == bindparam("batch_id"),
        batch.c.state == str(BatchState.IN_PROGRESS),
        batch.c.paused.is_(None),
        batch.c.budget_usd + granted_to_batch <= bindparam("limit_usd") + TOLERANCE_USD,
        ~exists(select(job.c.id).where(RUNNING, job.c.batch_id == batch.c.id)),
    )
    .values(paused=bindparam("reason"), pause_kind=str(PauseKind.BUDGET), paused_at=NOW)
    .returning(*HELD_BATCH, batch.c.paused.label("reason"))
)
"""Pause a batch that has spent its budget, if none of its jobs runs and no grant was made in the meantime."""

RESUME_SPENT = (
    update(batch)
    .where(
        batch.c.id == bindparam("batch_id"),
        batch.c.state == str(BatchState.IN_PROGRESS),
        batch.c.pause_kind == str(PauseKind.BUDGET),
    )
    .values(paused=None, pause_kind=None, resumed_at=NOW)
    .returning(*HELD_BATCH, batch.c.budget_usd)
)
"""Resume a batch that was paused because its budget was spent; when the original budget is restored, the difference
is granted."""

SET_BUDGET = (
    update(batch)
    .where(batch.c.id == bindparam("batch_id"), batch.c.state.in_([str(state) for state in OPEN_BATCH_STATES]))
    .values(budget_usd=bindparam("usd"))
    .returning(batch.c.id)
)
"""Replace the budget of a batch that has not ended."""

TAKE_GRANTS_BACK = delete(budget_grant).where(budget_grant.c.subject == bindparam("who"))
"""Delete the grants on a budget."""


class Budgets(Area):
    async def open_keys(self, at: float) -> list[BudgetKey]:
        """Batches and tenants with a budget and work to spend it on."""
        async with self._db.read() as connection:
            batches = (await connection.execute(WITH_OPEN_BUDGET)).scalars().all()
            tenants = (await connection.execute(TENANTS_WITH_BUDGET)).scalars().all()
        return [*(of_batch(each) for each in batches), *(of_tenant(each, at) for each in tenants)]

    async def read(
        self, subjects: Sequence[BudgetKey], of_providers: Mapping[BudgetKey, float] | None = None
    ) -> dict[BudgetKey, BudgetRecord]:
        """The ledger's records of some budgets. Provider budgets are not in the ledger and must be passed in."""
        known: dict[BudgetKey, BudgetRecord] = {}
        base: dict[BudgetKey, float | None] = dict(of_providers or {})
        spent: dict[BudgetKey, float] = {}
        groups: dict[tuple[str, str], dict[str, BudgetKey]] = defaultdict(dict)
        for subject in {*subjects, *base}:
            groups[subject.kind, subject.period][subject.name] = subject
        if not groups:
            return known
        async with self._db.read() as connection:
            for (kind, _), named in sorted(groups.items(), key=lambda item: item[0]):
                await _read_group(connection, kind, named, base, spent)
            whos = {"names": [each.who for group in groups.values() for each in group.values()]}
            granted = {(row.subject, row.period): row.usd for row in await connection.execute(GRANTS, whos)}
        for group in groups.values():
            for each in group.values():
                grant = float(granted.get((each.who, each.period), 0.0))
                known[each] = BudgetRecord(base.get(each), grant, spent.get(each, 0.0))
        return known

    async def grant(self, subject: BudgetKey, usd: float) -> None:
        """Grant money for this period."""
        async with self._db.write() as connection:
            row = {"subject": subject.who, "period": subject.period, "usd": usd}
            await ADD_GRANT.run(connection, [row])

    async def grant_batch(self, batch_id: str, total_usd: float | None = None) -> float | None:
        """Grant a paused batch its budget again and resume it; or set a new total of `total_usd`.

        Returns how much it may now spend; None if nothing was granted.
        """
        async with self._db.write() as connection:
            if total_usd is not None:
                done = await connection.execute(SET_BUDGET, {"batch_id": batch_id, "usd": total_usd})
                if done.first() is None:
                    return None
                await connection.execute(TAKE_GRANTS_BACK, {"who": of_batch(batch_id).who})
                return total_usd
            resumed = (await connection.execute(RESUME_SPENT, {"batch_id": batch_id})).all()
            if not resumed:
                return None
            await announce_resumed(connection, resumed)
            row = {"subject": of_batch(batch_id).who, "period": FOR_LIFE, "usd": resumed[0].budget_usd}
            await ADD_GRANT.run(connection, [row])
        known = (await self.read([of_batch(batch_id)]))[of_batch(batch_id)]
        return known.balance.limit_usd if known.balance else None

    async def pause_spent(self, batch_id: str, limit_usd: float, reason: str) -> bool:
        """Pause a batch that has spent its budget of `limit_usd`. False while any of its jobs runs, if its budget
        has grown, or if it is already paused."""
        words = {"batch_id": batch_id, "limit_usd": limit_usd, "reason": clean(reason)}
        async with self._db.write() as connection:
            held = (await connection.execute(PAUSE_SPENT, words)).all()
            await announce_held(connection, held)
        return bool(held)


async def _read_group(
    connection: AsyncConnection,
    kind: str,
    named: Mapping[str, BudgetKey],
    base: dict[BudgetKey, float | None],
    spent: dict[BudgetKey, float],
) -> None:
    """Budgets of one kind and period."""
    names = {"names": list(named)}
    if kind == BATCH:
        for row in await connection.execute(BUDGETS_OF_BATCHES, names):
            base[named[row.name]], spent[named[row.name]] = row.base_usd, float(row.spent_usd)
        return
    first, end = next(iter(named.values())).days
    if kind == TENANT:
        for name, base_usd in await connection.execute(BUDGETS_OF_TENANTS, names):
            base[named[name]] = base_usd
    sums = SPENT_BY_TENANTS if kind == TENANT else SPENT_AT_PROVIDERS
    for name, usd in await connection.execute(sums, {**names, "first": first, "end": end}):
        spent[named[name]] = float(usd)
