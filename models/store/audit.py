"""The audit log: who changed what, and its state before and after."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.ids import new_id
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, audit, clean

COMMAND_LINE = "command line"
"""Prefix of actors on the machine itself, as opposed to HTTP API callers."""

MOST_IN_AN_HOUR = 1_000
"""Beyond this many rows per caller and kind of action, the latest row counts further ones: an authorized caller must
not be able to fill the ledger."""

HOUR_S = 3_600.0

Values = Mapping[str, Any]
"""What an action changed, by name. Never a secret, a prompt or an answer."""

INSERT_AUDIT = insert(audit).values(at=NOW, times=1, last_at=None)
"""An administrative action."""

_of_actor = and_(
    audit.c.action == bindparam("of_action"), audit.c.actor == bindparam("of_actor"), audit.c.at > NOW - HOUR_S
)
_lately = select(audit.c.id).where(_of_actor).limit(MOST_IN_AN_HOUR).subquery()

ACTS_LATELY = select(func.count()).select_from(_lately)
"""How many actions of one kind an actor performed within an hour, up to the limit that matters."""

_again = {"times": audit.c.times + bindparam("more"), "last_at": NOW}


def _latest(*conditions: ColumnElement[bool]) -> Any:
    return select(func.max(audit.c.id)).where(_of_actor, *conditions).scalar_subquery()


COUNT_SAME = (
    update(audit)
    .where(audit.c.id == _latest(audit.c.subject == bindparam("of_subject"), audit.c.tenant == bindparam("of_tenant")))
    .values(_again)
    .returning(audit.c.id)
)
"""Count an action that its actor already performed within the last hour."""

COUNT_LATEST = update(audit).where(audit.c.id == _latest()).values(_again)
"""Count an action beyond the limit."""


def audit_page(tenant: str | None, before: str, since: float | None, equal: Mapping[str, str | None]) -> Select[Any]:
    """The actions that concern a tenant, or all, newest first."""
    page = select(audit).order_by(audit.c.id.desc())
    for name, value in {"tenant": tenant, **equal}.items():
        if value is not None:
            page = page.where(audit.c[name] == value)
    if since is not None:
        page = page.where(func.coalesce(audit.c.last_at, audit.c.at) >= since)
    return page.where(audit.c.id < before) if before else page


class Audit(Area):
    async def entries(
        self,
        tenant: str | None = None,
        limit: int = 100,
        before: str = "",
        *,
        since: float | None = None,
        actor: str | None = None,
        action: str | None = None,
    ) -> list[dict[str, Any]]:
        """Actions, newest first; `before` is the id of the last one seen."""
        page = audit_page(tenant, clean(before) or "", since, {"actor": clean(actor), "action": clean(action)})
        return [_act(row) for row in await self._db.rows(page.limit(limit))]

    async def record(
        self, actor: str, tenant: str, action: str, subject: str, old: Values | None = None, new: Values | None = None
    ) -> None:
        """For actions that no other statement of the same transaction records. `tenant` "": it concerns all."""
        async with self._db.write() as connection:
            await record_act(connection, actor, tenant, action, subject, old, new)

    async def record_repeated(self, actor: str, tenant: str, action: str, subject: str, times: int = 1) -> None:
        """For frequent actions: one row per hour, with a count."""
        same = {"of_actor": actor, "of_tenant": tenant, "of_action": action, "of_subject": clean(subject)}
        async with self._db.write() as connection:
            if (await connection.execute(COUNT_SAME, {**same, "more": times})).first() is not None:
                return
            await record_act(connection, actor, tenant, action, subject)
            if times > 1:
                await connection.execute(COUNT_SAME, {**same, "more": times - 1})


async def record_act(
    connection: AsyncConnection,
    actor: str,
    tenant: str,
    action: str,
    subject: str,
    old: Values | None = None,
    new: Values | None = None,
) -> None:
    """An audit row, in the transaction of the action itself. `actor`: a key's id, "loopback", or "command line: " or
    "python: " with the operating system user."""
    of = {"of_actor": actor, "of_action": action}
    at_the_machine = actor.startswith(COMMAND_LINE)
    if not at_the_machine and (await connection.execute(ACTS_LATELY, of)).scalar_one() >= MOST_IN_AN_HOUR:
        await connection.execute(COUNT_LATEST, {**of, "more": 1})
        return
    row = {"id": new_id("audit"), "actor": actor, "tenant": tenant, "action": action, "subject": clean(subject)}
    await connection.execute(INSERT_AUDIT, {**row, "old": _written(old), "new": _written(new)})


def changes(before: Values, after: Values) -> tuple[Values, Values]:
    """The differences between two states: values before and after."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def _written(values: Values | None) -> str | None:
    return None if values is None else clean(orjson.dumps(values, default=list).decode())


def _act(row: Row[Any]) -> dict[str, Any]:
    act = dict(row._mapping)
    return act | {name: None if act[name] is None else orjson.loads(act[name]) for name in ("old", "new")}
