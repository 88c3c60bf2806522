"""API keys and administrative actions, over HTTP and on the command line."""

from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from understudy.models.api_keys import KeyRecord, KeyState, Scope
from understudy.models.objects.shapes import described


@described
class KeyObject(TypedDict):
    """An API key without its secret. Times are unix seconds."""

    id: str
    object: Literal["api_key"]
    name: str
    tenant: str
    scopes: list[Scope]
    state: KeyState
    created_at: int
    expires_at: int | None
    revoked_at: int | None


@described
class ActObject(TypedDict):
    """An administrative action. Times are unix seconds."""

    id: str
    object: Literal["audit"]
    at: float
    actor: str
    tenant: str
    action: str
    subject: str
    old: dict[str, Any] | None
    """The values before the change."""
    new: dict[str, Any] | None
    """The values after the change."""
    times: int
    """How often it happened; frequent actions are combined into one entry per hour."""
    last_at: float | None
    """When it happened last, if more than once."""


def key_object(record: KeyRecord, now: float) -> KeyObject:
    return {
        "id": record.id,
        "object": "api_key",
        "name": record.name,
        "tenant": record.tenant,
        "scopes": sorted(record.scopes),
        "state": record.state(now),
        "created_at": int(record.created_at),
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "revoked_at": None if record.revoked_at is None else int(record.revoked_at),
    }


def act_object(entry: Mapping[str, Any]) -> ActObject:
    """`entry`: as returned by `Store.audit.entries`."""
    return {
        "id": entry["id"],
        "object": "audit",
        "at": entry["at"],
        "actor": entry["actor"],
        "tenant": entry["tenant"],
        "action": entry["action"],
        "subject": entry["subject"],
        "old": entry["old"],
        "new": entry["new"],
        "times": entry["times"],
        "last_at": entry["last_at"],
    }
