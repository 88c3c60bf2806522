"""Webhook deliveries: claiming due ones in an order chosen by the claimer, and recording each attempt."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import Select, bindparam, case, exists, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.store.content import mark_delivered
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, clean, webhook_delivery
from understudy.models.webhook_events import PENDING, Delivery, Tried

TENANTS_AT_ONCE = 100
RECEIVERS_AT_ONCE = 200
"""Per tenant: bounds the cost of a claim, however many receivers it names."""

CLAIM_LOCK = 0x57EB_4001

_row = webhook_delivery.c

_pending = _row.state == literal_column("'pending'")

_due = (_pending, _row.next_at <= NOW)

ANYTHING_DUE = select(exists(select(_row.id).where(*_due)))
"""Whether any delivery is due."""

ONE_CLAIMS = select(func.pg_try_advisory_xact_lock(CLAIM_LOCK))
"""PostgreSQL: one worker at a time claims deliveries, otherwise two could both fill up a receiver. SQLite's writers
take turns anyway."""


def _names(of: Any, *conditions: Any) -> Any:
    """The distinct values of a column among pending rows, in order; found by index steps, however many rows share
    each."""
    first = select(func.min(of).label("name")).where(_pending, of > bindparam("after"), *conditions)
    each = first.cte("names", recursive=True)
    following = select(func.min(of)).where(_pending, of > each.c.name, *conditions).scalar_subquery()
    return each.union_all(select(following).where(each.c.name.is_not(None)))


_tenants = _names(_row.tenant)

TENANTS_WAITING: Select[Any] = select(_tenants.c.name).where(_tenants.c.name.is_not(None)).limit(TENANTS_AT_ONCE)
"""Tenants with pending deliveries, by name."""

_of_tenant = _row.tenant == bindparam("whose")

_receivers = _names(_row.receiver, _of_tenant)

_due_of_one = (
    select(_row.id)
    .where(*_due, _of_tenant, _row.receiver == _receivers.c.name)
    .limit(bindparam("enough"))
    .correlate(_receivers)
)

RECEIVERS_WAITING: Select[Any] = (
    select(
        _receivers.c.name,
        select(func.count()).select_from(_due_of_one.subquery()).scalar_subquery().label("due"),
    )
    .where(_receivers.c.name.is_not(None))
    .limit(RECEIVERS_AT_ONCE)
)
"""A tenant's receivers with pending deliveries, by name, and how many deliveries are due for each, up to the number
that matters."""

UNDER_WAY = (
    select(_row.receiver, func.count().label("tries"))
    .where(_row.claimed_by.is_not(None), _row.next_at > NOW)
    .group_by(_row.receiver)
)
"""Running attempts per receiver, fleet-wide."""

CLAIM_DELIVERIES = (
    update(webhook_delivery)
    .where(
        _row.id.in_(
            select(_row.id)
            .where(*_due, _row.receiver == bindparam("to"))
            .order_by(_row.next_at, _row.id)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(claimed_by=bindparam("holder"), next_at=NOW + bindparam("lease_s"))
    .returning(*(_row[name] for name in Delivery.__dataclass_fields__))
)
"""Claim some due deliveries of one receiver for this worker until the lease ends."""

FINISH_DELIVERY = (
    update(webhook_delivery)
    .where(
        _row.id == bindparam("delivery_id"),
        _row.claimed_by == bindparam("holder"),
        _row.tries == bindparam("seen"),
        _pending,
    )
    .values(
        state=bindparam("becomes"),
        tries=bindparam("seen") + bindparam("counted"),
        next_at=NOW + bindparam("delay_s"),
        claimed_by=None,
        last_status=bindparam("status"),
        last_error=bindparam("error"),
        log=bindparam("tried"),
        ended_at=case((bindparam("becomes") == PENDING, None), else_=NOW),
    )
    .returning(_row.id)
)
"""Record an attempt, if the claim is still this worker's."""


@dataclass(frozen=True, slots=True)
class Due:
    """A receiver with due deliveries, and how many more attempts may start for it."""

    tenant: str
    receiver: str
    room: int


@dataclass(frozen=True, slots=True)
class Place:
    """The position up to which tenants and their receivers were examined; the next claim continues there. `more`:
    others after it were not examined."""

    tenant: str = ""
    receivers: Mapping[str, str] = field(default_factory=dict)
    more: bool = False


Choose = Callable[[Sequence[Due]], Iterable[Due]]
"""The receivers to try now, one entry per attempt, in the order of claiming."""


def as_they_come(due: Sequence[Due]) -> Iterable[Due]:
    for each in due:
        yield from [each] * each.room


class Deliveries(Area):
    async def claim(
        self,
        holder: str,
        most: int,
        per_receiver: int,
        lease_s: float,
        place: Place = Place(),
        choose: Choose = as_they_come,
    ) -> tuple[list[Delivery], Place]:
        """Up to `most` due deliveries of the chosen receivers, and the position for the next claim.

        No receiver has more than `per_receiver` attempts running fleet-wide, however many wait. A claim whose worker
        dies becomes due again when its lease ends.
        """
        async with self._db.read() as connection:
            if not (await connection.execute(ANYTHING_DUE)).scalar_one():
                return [], Place()
            due, place = await _look(connection, per_receiver, place)
        chosen = Counter(each.receiver for each in islice(choose(due), most))
        claimed: list[Delivery] = []
        if not chosen:
            return claimed, place
        async with self._db.write() as connection:
            if self._db.dialect == "postgresql" and not (await connection.execute(ONE_CLAIMS)).scalar_one():
                return [], Place()
            busy = await _under_way(connection)
            for receiver, tries in chosen.items():
                room = min(tries, per_receiver - busy[receiver])
                claimed += await _claim(connection, receiver, holder, room, lease_s)
        return claimed, place

    async def finish(self, holder: str, ended: Sequence[Tried]) -> set[str]:
        """Record the outcome of attempts if the claim is still this worker's; returns the ids written."""
        written = set()
        async with self._db.write() as connection:
            for each in sorted(ended, key=lambda tried: tried.delivery.id):
                if (await connection.execute(FINISH_DELIVERY, _finish(holder, each))).first() is not None:
                    written.add(each.delivery.id)
            await mark_delivered(connection, (each for each in ended if each.delivery.id in written))
        return written


async def _look(connection: AsyncConnection, per_receiver: int, place: Place) -> tuple[list[Due], Place]:
    busy = await _under_way(connection)
    tenants = (await connection.execute(TENANTS_WAITING, {"after": place.tenant})).scalars().all()
    due, behind, more = [], {}, len(tenants) == TENANTS_AT_ONCE
    for tenant in tenants:
        asked = {"whose": tenant, "after": place.receivers.get(tenant, ""), "enough": per_receiver}
        found = (await connection.execute(RECEIVERS_WAITING, asked)).all()
        rooms = [(each.name, min(each.due, per_receiver - busy[each.name])) for each in found]
        due += [Due(tenant, name, room) for name, room in rooms if room > 0]
        if len(found) == RECEIVERS_AT_ONCE:
            behind[tenant], more = found[-1].name, True
    others = {tenant: name for tenant, name in place.receivers.items() if tenant not in tenants}
    last = tenants[-1] if len(tenants) == TENANTS_AT_ONCE else ""
    return due, Place(last, {**(others if last or place.tenant else {}), **behind}, more)


async def _under_way(connection: AsyncConnection) -> Counter[str]:
    return Counter({row.receiver: row.tries for row in await connection.execute(UNDER_WAY)})


async def _claim(connection: AsyncConnection, receiver: str, holder: str, room: int, lease_s: float) -> list[Delivery]:
    if room <= 0:
        return []
    words = {"to": receiver, "most": room, "holder": holder, "lease_s": lease_s}
    return [Delivery(**row) for row in (await connection.execute(CLAIM_DELIVERIES, words)).mappings()]


def _finish(holder: str, tried: Tried) -> dict[str, Any]:
    return {
        "delivery_id": tried.delivery.id,
        "holder": holder,
        "seen": tried.delivery.tries,
        "becomes": tried.state,
        "delay_s": tried.delay_s,
        "status": tried.status,
        "error": clean(tried.error),
        "tried": tried.log,
        "counted": int(tried.counted),
    }
