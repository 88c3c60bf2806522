"""Webhooks as known to both sides: event names, subscriptions, secrets and signatures.

Signed according to Standard Webhooks: `webhook-id` is the same for all attempts of a delivery, `webhook-timestamp` is
the attempt's, `webhook-signature` contains one `v1,…` per valid secret, separated by spaces.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from understudy.models.state import TERMINAL_STATES, BatchState

JOB_EVENTS = tuple(f"job.{state}" for state in sorted(TERMINAL_STATES))
BATCH_EVENTS = tuple(
    f"batch.{state}" for state in (BatchState.CANCELLED, BatchState.COMPLETED, BatchState.EXPIRED, BatchState.FAILED)
)
BATCH_PAUSED, BATCH_RESUMED = "batch.paused", "batch.resumed"
"""A batch waits for a person, or continues."""

EVENTS = (*JOB_EVENTS, *BATCH_EVENTS, BATCH_PAUSED, BATCH_RESUMED)
PATTERNS = ("*", "job.*", "batch.*")

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
ROTATION_S = 86_400.0
"""How long a replaced secret keeps signing in addition to the new one."""

PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"
STATES = (PENDING, DELIVERED, DEAD)

LOG_ENTRIES = 40
"""The latest attempts recorded with a delivery: a replayed one may have had many."""


def wants(patterns: Iterable[str], event: str) -> bool:
    """Whether a list of events and patterns matches this event."""
    kind = event.partition(".")[0]
    return not {event, f"{kind}.*", "*"}.isdisjoint(patterns)


def tells_of_an_end(event: str) -> bool:
    """Whether the event is the end of a job or batch."""
    return event not in (BATCH_PAUSED, BATCH_RESUMED)


def has_all(metadata: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether the metadata contains every wanted pair."""
    return all(metadata.get(name) == value for name, value in wanted.items())


SECRET_READ = "webhook.secret.read"
"""The audited action of reading the secrets for webhooks to callback URLs."""


def callback_owner(tenant: str) -> str:
    """The owner of the secrets for a tenant's callback URLs."""
    return f"tenant:{tenant}"


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…`: HMAC-SHA256 of id, timestamp and body, joined by dots."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed_headers(secrets: Iterable[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver verifies an attempt."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, webhook_id, timestamp, body) for secret in secrets),
    }


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that this worker has claimed for one attempt."""

    id: str
    tenant: str
    endpoint_id: str | None
    url: str
    receiver: str
    event: str
    object_id: str
    tries: int  # attempts that ended before this one
    log: str
    created_at: float
    data: str | None = None  # JSON content; None: read from the ledger when sent

    @property
    def owner(self) -> str:
        """The owner of the secrets that sign it."""
        return self.endpoint_id or callback_owner(self.tenant)


@dataclass(frozen=True, slots=True)
class Tried:
    """The outcome of an attempt: delivered, dead, or pending again in `delay_s` seconds."""

    delivery: Delivery
    state: str
    delay_s: float = 0.0
    at: float = 0.0
    status: int | None = None
    error: str | None = None
    took_ms: int = 0
    counted: bool = True  # False: no connection was made; due again as if not attempted

    @property
    def log(self) -> str:
        if not self.counted:
            return self.delivery.log
        entry = {"at": self.at, "status": self.status, "error": self.error, "ms": self.took_ms}
        tries = [*orjson.loads(self.delivery.log), entry]
        return orjson.dumps(tries[-LOG_ENTRIES:]).decode()


@dataclass(frozen=True, slots=True)
class Signing:
    """What a delivery is signed with, or why its receiver is disabled."""

    secrets: tuple[str, ...]
    refused: str | None = None
