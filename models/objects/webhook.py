"""Webhook endpoints and deliveries, over HTTP and on the command line, and the bodies of webhooks."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from understudy.models.objects.job import JobObject
from understudy.models.objects.shapes import described
from understudy.models.webhook_events import PENDING


@described
class EndpointObject(TypedDict):
    """A URL that receives a tenant's events."""

    id: str
    object: Literal["webhook_endpoint"]
    url: str
    events: list[str]
    match: dict[str, str] | None
    """Metadata that a job or batch must have for its events to be sent."""
    disabled: str | None
    """Why the endpoint is disabled; null if it is enabled."""
    created_at: int


@described
class TryObject(TypedDict):
    at: float
    """Unix seconds."""
    status: int | None
    """HTTP status; null without a response."""
    error: str | None
    latency_ms: int


@described
class DeliveryObject(TypedDict):
    """One event for one receiver. Times are unix seconds."""

    id: str
    """The `webhook-id`, the same for all tries."""
    object: Literal["webhook_delivery"]
    endpoint_id: str | None
    """null for a callback URL of a job or batch."""
    url: str
    event: str
    object_id: str
    """Id of the job or batch."""
    state: Literal["pending", "delivered", "dead"]
    tries: int
    next_at: float | None
    """When a pending delivery is tried next."""
    last_status: int | None
    last_error: str | None
    log: list[TryObject]
    """The latest tries, oldest first."""
    created_at: float
    ended_at: float | None


@described
class JobEvent(TypedDict):
    """The body of a webhook about a job."""

    id: str
    """The `webhook-id`, the same for all tries."""
    object: Literal["event"]
    type: Literal["job.cancelled", "job.expired", "job.failed", "job.succeeded"]
    created_at: int
    """Unix seconds."""
    timestamp: str
    """The same in UTC, such as `2026-11-22T20:40:00Z`."""
    data: JobObject


@described
class EventBatch(TypedDict):
    id: str
    reason: NotRequired[str]
    """Of `batch.paused`: a sentence for people."""


@described
class BatchEvent(TypedDict):
    """The body of a webhook about a batch."""

    id: str
    """The `webhook-id`, the same for all tries."""
    object: Literal["event"]
    type: Literal[
        "batch.cancelled", "batch.completed", "batch.expired", "batch.failed", "batch.paused", "batch.resumed"
    ]
    created_at: int
    """Unix seconds."""
    timestamp: str
    """The same in UTC, such as `2026-11-22T20:40:00Z`."""
    data: EventBatch


def endpoint_object(row: Mapping[str, Any]) -> EndpointObject:
    return {
        "id": row["id"],
        "object": "webhook_endpoint",
        "url": row["url"],
        "events": row["events"],
        "match": row["match"],
        "disabled": row["disabled"],
        "created_at": int(row["created_at"]),
    }


def delivery_object(row: Mapping[str, Any]) -> DeliveryObject:
    return {
        "id": row["id"],
        "object": "webhook_delivery",
        "endpoint_id": row["endpoint_id"],
        "url": row["url"],
        "event": row["event"],
        "object_id": row["object_id"],
        "state": row["state"],
        "tries": row["tries"],
        "next_at": row["next_at"] if row["state"] == PENDING else None,
        "last_status": row["last_status"],
        "last_error": row["last_error"],
        "log": [_try_object(each) for each in row["log"]],
        "created_at": row["created_at"],
        "ended_at": row["ended_at"],
    }


def _try_object(entry: Mapping[str, Any]) -> TryObject:
    return {
        "at": entry["at"],
        "status": entry["status"],
        "error": entry["error"],
        "latency_ms": entry["ms"],
    }
