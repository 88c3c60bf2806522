"""Webhook endpoints and deliveries, as the API and the commands show them."""

from typing import Any

from pydantic import BaseModel


class Endpoint(BaseModel):
    """A webhook endpoint of a tenant. `match`: metadata that a job or batch must have."""

    id: str
    object: str = "webhook_endpoint"
    url: str
    events: list[str]
    match: dict[str, str] | None
    disabled: str | None
    created_at: int


class Try(BaseModel):
    at: float
    status: int | None
    error: str | None
    ms: int


class Delivery(BaseModel):
    """One event for one receiver; its id is the `webhook-id` of all its attempts."""

    id: str
    object: str = "webhook_delivery"
    endpoint_id: str | None
    url: str
    event: str
    object_id: str
    state: str
    tries: int
    next_at: float | None
    last_status: int | None
    last_error: str | None
    log: list[Try]
    created_at: float
    ended_at: float | None


def endpoint_document(row: dict[str, Any]) -> dict[str, Any]:
    """An endpoint as the API and the commands show it."""
    shown = {name: row[name] for name in ("id", "url", "events", "match", "disabled")}
    return {"object": "webhook_endpoint", **shown, "created_at": int(row["created_at"])}


def delivery_document(row: dict[str, Any]) -> dict[str, Any]:
    """A delivery as the API and the commands show it."""
    shown = {name: row[name] for name in Delivery.model_fields if name not in ("object", "next_at")}
    due = row["next_at"] if row["state"] == "pending" else None
    return {"object": "webhook_delivery", **shown, "next_at": due}
