"""Webhooks as both sides know them: the names of events, who wants which, secrets and signatures.

Signed as Standard Webhooks has it: `webhook-id` is the same for all tries of a delivery, `webhook-timestamp` is that
of the try, `webhook-signature` is one `v1,…` for each secret that is in force, separated by blanks.
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
"""A batch waits for a person, and goes on."""

EVENTS = (*JOB_EVENTS, *BATCH_EVENTS, BATCH_PAUSED, BATCH_RESUMED)
PATTERNS = ("*", "job.*", "batch.*")

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
ROTATION_S = 86_400.0
"""For how long a secret that was replaced goes on signing beside the new one."""

PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"
STATES = (PENDING, DELIVERED, DEAD)

LOG_ENTRIES = 40
"""The latest tries that a delivery remembers: a replayed one may have had many."""


def wants(patterns: Iterable[str], event: str) -> bool:
    """Whether a list of events and patterns names this event."""
    kind = event.partition(".")[0]
    return not {event, f"{kind}.*", "*"}.isdisjoint(patterns)


def tells_of_an_end(event: str) -> bool:
    """Whether a job or batch has ended with it."""
    return event not in (BATCH_PAUSED, BATCH_RESUMED)


def has_all(metadata: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether the metadata has every wanted pair."""
    return all(metadata.get(name) == value for name, value in wanted.items())


SECRET_READ = "webhook.secret.read"
"""The act of looking at what signs the webhooks to callback URLs."""


def callback_owner(tenant: str) -> str:
    """Whose secrets sign what goes to a tenant's callback URLs."""
    return f"tenant:{tenant}"


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…`: HMAC-SHA256 of id, timestamp and body, with a dot between them."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed_headers(secrets: Iterable[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What a receiver verifies a try by."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, webhook_id, timestamp, body) for secret in secrets),
    }


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that this worker has claimed for one try."""

    id: str
    tenant: str
    endpoint_id: str | None
    url: str
    receiver: str
    event: str
    object_id: str
    tries: int  # that ended before this one
    log: str
    created_at: float
    data: str | None = None  # JSON: what it says; None: made from the ledger when it is sent

    @property
    def owner(self) -> str:
        """Whose secrets sign it."""
        return self.endpoint_id or callback_owner(self.tenant)


@dataclass(frozen=True, slots=True)
class Tried:
    """How a try ended: delivered, dead, or pending again in `delay_s` seconds."""

    delivery: Delivery
    state: str
    delay_s: float = 0.0
    at: float = 0.0
    status: int | None = None
    error: str | None = None
    took_ms: int = 0
    counted: bool = True  # False: no connection was made, it is due again as if nothing had been tried

    @property
    def log(self) -> str:
        if not self.counted:
            return self.delivery.log
        entry = {"at": self.at, "status": self.status, "error": self.error, "ms": self.took_ms}
        tries = [*orjson.loads(self.delivery.log), entry]
        return orjson.dumps(tries[-LOG_ENTRIES:]).decode()


@dataclass(frozen=True, slots=True)
class Signing:
    """What a delivery is signed with, or why its receiver is not told any more."""

    secrets: tuple[str, ...]
    refused: str | None = None
