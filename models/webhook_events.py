"""Webhooks as known to both sides: event names, subscriptions, deliveries and their attempts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from understudy.models.state import TERMINAL_STATES, BatchState
from understudy.models.webhook_signing import callback_owner

JOB_EVENTS = tuple(f"job.{state}" for state in sorted(TERMINAL_STATES))
BATCH_EVENTS = tuple(
    f"batch.{state}" for state in (BatchState.CANCELLED, BatchState.COMPLETED, BatchState.EXPIRED, BatchState.FAILED)
)
BATCH_PAUSED, BATCH_RESUMED = "batch.paused", "batch.resumed"
"""A batch waits for a person, or continues."""

EVENTS = (*JOB_EVENTS, *BATCH_EVENTS, BATCH_PAUSED, BATCH_RESUMED)
PATTERNS = ("*", "job.*", "batch.*")

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
