"""The transactional outbox: webhook rows, written in the transaction that ends, pauses or resumes a job or batch.

Every statement that ends jobs returns `ENDED_JOB` and passes its rows to `announce_jobs`; one that ends batches returns
`ENDED_BATCH` and passes them to `announce_batches`; one that pauses or resumes a batch returns `HELD_BATCH`. Jobs of a
batch are not announced one by one, and cost nothing here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Row, Select, bindparam, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.ids import new_id
from understudy.models.jobs.submission import SINGLE
from understudy.models.store.sql import NOW, BulkInsert, batch, job, webhook_delivery, webhook_endpoint
from understudy.models.webhook_events import BATCH_PAUSED, BATCH_RESUMED, PENDING, has_all, wants

ENDED_JOB = (job.c.id, job.c.batch_id, job.c.state, job.c.ended_at, job.c.tenant, job.c.callback_url, job.c.note)
"""Columns needed to announce a job that just ended."""

ENDED_BATCH = (batch.c.id, batch.c.state, batch.c.ended_at, batch.c.tenant, batch.c.callback_url, batch.c.note)
"""Columns needed to announce a batch that just ended."""

HELD_BATCH = (batch.c.id, batch.c.tenant, batch.c.callback_url, batch.c.note, NOW.label("now"))
"""Columns needed to announce a batch that was just paused or resumed; with `reason` if paused."""

ENDPOINTS_IN_USE: Select[Any] = select(
    webhook_endpoint.c.id,
    webhook_endpoint.c.tenant,
    webhook_endpoint.c.url,
    webhook_endpoint.c.events,
    webhook_endpoint.c.match,
).where(webhook_endpoint.c.tenant.in_(bindparam("tenants", expanding=True)), webhook_endpoint.c.disabled.is_(None))
"""The endpoints of some tenants that subscribe to an event."""

INSERT_DELIVERIES = BulkInsert(webhook_delivery)
"""Events for receivers, due at once."""

RELEASE_DELIVERIES = (
    update(webhook_delivery)
    .where(webhook_delivery.c.claimed_by == bindparam("holder"), webhook_delivery.c.claimed_by.is_not(None))
    .where(webhook_delivery.c.state == literal_column("'pending'"))
    .values(claimed_by=None, next_at=NOW)
)
"""Make due at once what a worker was delivering when it died or stopped."""


@dataclass(frozen=True, slots=True)
class _Event:
    """`data`: the content of the webhook, unless it is read from the ledger at delivery."""

    name: str
    at: float
    of: Row[Any]
    data: dict[str, Any] | None = None


async def announce_jobs(connection: AsyncConnection, ended: Iterable[Row[Any]]) -> None:
    """From rows of `ENDED_JOB`: announces single jobs."""
    singles = (row for row in ended if row.batch_id == SINGLE)
    await _announce(connection, [_Event(f"job.{row.state}", row.ended_at, row) for row in singles])


async def announce_batches(connection: AsyncConnection, ended: Iterable[Row[Any]]) -> None:
    """From rows of `ENDED_BATCH`."""
    await _announce(connection, [_Event(f"batch.{row.state}", row.ended_at, row) for row in ended])


async def announce_held(connection: AsyncConnection, held: Iterable[Row[Any]]) -> None:
    """From rows of `HELD_BATCH` with a `reason`. The webhook reports the state at this moment, whatever happens to
    the batch later."""
    events = [_Event(BATCH_PAUSED, row.now, row, {"id": row.id, "reason": row.reason}) for row in held]
    await _announce(connection, events)


async def announce_resumed(connection: AsyncConnection, resumed: Iterable[Row[Any]]) -> None:
    """From rows of `HELD_BATCH`."""
    await _announce(connection, [_Event(BATCH_RESUMED, row.now, row) for row in resumed])


async def _announce(connection: AsyncConnection, events: Sequence[_Event]) -> None:
    if not events:
        return
    tenants = {event.of.tenant for event in events}
    endpoints: Sequence[Row[Any]] = (await connection.execute(ENDPOINTS_IN_USE, {"tenants": sorted(tenants)})).all()
    deliveries = []
    for event in events:
        if event.of.callback_url:
            deliveries.append(_delivery(event, event.of.callback_url, None))
        for endpoint in endpoints:
            if endpoint.tenant == event.of.tenant and _is_told(endpoint, event.name, event.of.note):
                deliveries.append(_delivery(event, endpoint.url, endpoint.id))
    await INSERT_DELIVERIES.run(connection, deliveries)


def _is_told(endpoint: Row[Any], event: str, note: str | None) -> bool:
    if not wants(orjson.loads(endpoint.events), event):
        return False
    return endpoint.match is None or has_all(orjson.loads(note or "{}"), orjson.loads(endpoint.match))


def _delivery(event: _Event, url: str, endpoint_id: str | None) -> dict[str, Any]:
    return {
        "id": new_id("evt"),
        "tenant": event.of.tenant,
        "endpoint_id": endpoint_id,
        "url": url,
        "receiver": endpoint_id or callback_receiver(event.of.tenant, url),
        "event": event.name,
        "object_id": event.of.id,
        "data": None if event.data is None else orjson.dumps(event.data).decode(),
        "state": PENDING,
        "next_at": event.at,
        "log": "[]",
        "created_at": event.at,
    }


def callback_receiver(tenant: str, url: str) -> str:
    """Callback URLs often differ per job; those of one tenant at one server share a queue."""
    return f"{tenant} {'/'.join(url.split('/', 3)[:3])}"
