"""Telling of what ended: the rows of webhooks, written in the transaction that ends a job or a batch.

Every statement that ends jobs returns `ENDED_JOB` and hands its rows to `announce_jobs`; one that ends batches returns
`ENDED_BATCH` and hands them to `announce_batches`. Jobs of a batch are not told of one by one, and cost nothing here.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, Select, bindparam, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.ids import new_id
from models.records import SINGLE
from models.store.sql import NOW, BulkInsert, batch, job, webhook_delivery, webhook_endpoint
from models.webhooks import PENDING, has_all, wants

ENDED_JOB = (job.c.id, job.c.batch_id, job.c.state, job.c.ended_at, job.c.tenant, job.c.callback_url, job.c.note)
"""What is to be known of a job that ended just now."""

ENDED_BATCH = (batch.c.id, batch.c.state, batch.c.ended_at, batch.c.tenant, batch.c.callback_url, batch.c.note)
"""What is to be known of a batch that ended just now."""

ENDPOINTS_IN_USE: Select[Any] = select(
    webhook_endpoint.c.id,
    webhook_endpoint.c.tenant,
    webhook_endpoint.c.url,
    webhook_endpoint.c.events,
    webhook_endpoint.c.match,
).where(webhook_endpoint.c.tenant.in_(bindparam("tenants", expanding=True)), webhook_endpoint.c.disabled.is_(None))
"""The endpoints of some tenants that are to be told of something."""

INSERT_DELIVERIES = BulkInsert(webhook_delivery)
"""Events for receivers, due at once."""

RELEASE_DELIVERIES = (
    update(webhook_delivery)
    .where(webhook_delivery.c.claimed_by == bindparam("holder"), webhook_delivery.c.claimed_by.is_not(None))
    .where(webhook_delivery.c.state == literal_column("'pending'"))
    .values(claimed_by=None, next_at=NOW)
)
"""What a worker was delivering when it died or stopped is due at once."""


async def announce_jobs(connection: AsyncConnection, ended: Iterable[Row[Any]]) -> None:
    """Of rows of `ENDED_JOB`: those that were submitted alone are told of."""
    await _announce(connection, "job", [row for row in ended if row.batch_id == SINGLE])


async def announce_batches(connection: AsyncConnection, ended: Iterable[Row[Any]]) -> None:
    """Of rows of `ENDED_BATCH`."""
    await _announce(connection, "batch", list(ended))


async def _announce(connection: AsyncConnection, kind: str, ended: Sequence[Row[Any]]) -> None:
    if not ended:
        return
    tenants = {row.tenant for row in ended}
    endpoints: Sequence[Row[Any]] = (await connection.execute(ENDPOINTS_IN_USE, {"tenants": sorted(tenants)})).all()
    deliveries = []
    for row in ended:
        event = f"{kind}.{row.state}"
        if row.callback_url:
            deliveries.append(_delivery(row, event, row.callback_url, None))
        for endpoint in endpoints:
            if endpoint.tenant == row.tenant and _is_told(endpoint, event, row.note):
                deliveries.append(_delivery(row, event, endpoint.url, endpoint.id))
    await INSERT_DELIVERIES.run(connection, deliveries)


def _is_told(endpoint: Row[Any], event: str, note: str | None) -> bool:
    if not wants(orjson.loads(endpoint.events), event):
        return False
    return endpoint.match is None or has_all(orjson.loads(note or "{}"), orjson.loads(endpoint.match))


def _delivery(ended: Row[Any], event: str, url: str, endpoint_id: str | None) -> dict[str, Any]:
    return {
        "id": new_id("evt"),
        "tenant": ended.tenant,
        "endpoint_id": endpoint_id,
        "url": url,
        "receiver": endpoint_id or callback_receiver(ended.tenant, url),
        "event": event,
        "object_id": ended.id,
        "state": PENDING,
        "tries": 0,
        "next_at": ended.ended_at,
        "claimed_by": None,
        "last_status": None,
        "last_error": None,
        "log": "[]",
        "created_at": ended.ended_at,
        "ended_at": None,
    }


def callback_receiver(tenant: str, url: str) -> str:
    """Callback URLs often differ for every job; those of one tenant at one server take turns."""
    return f"{tenant} {'/'.join(url.split('/', 3)[:3])}"
