"""A provider call, as the log of calls, jobs and results show it."""

from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from understudy.models.objects.shapes import described
from understudy.models.records import AttemptRecord


@described
class AttemptObject(TypedDict):
    """A provider call. Times are unix seconds."""

    id: str
    object: Literal["attempt"]
    job_id: str
    batch_id: str | None
    """null: its job was submitted alone."""
    tenant: str
    no: int
    """Its number among the calls of its job, from 1."""
    step: int
    """Of the chain, from 0."""
    provider: str
    model: str
    key: str
    """The name of the credential."""
    started_at: float
    failure: str | None
    """The failure class; null: it answered."""
    status: int | None
    """Of the HTTP answer; null: there was none."""
    latency_ms: int
    possibly_billed: bool
    """It failed, and may cost something all the same."""
    message: str | None
    """What the provider said when it failed."""
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """null: no price is known."""


@described
class AttemptList(TypedDict):
    object: Literal["list"]
    data: list[AttemptObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AttemptSummary(TypedDict):
    """What is kept of a call in a job's result (`extra_fields.attempts`): some fields of an `AttemptObject`."""

    provider: str
    model: str
    failure: str | None
    status: int | None
    latency_ms: int
    possibly_billed: bool
    message: str | None


def attempt_object(row: Mapping[str, Any]) -> AttemptObject:
    """From a row of the log, as `Store.jobs.attempts` gives it."""
    return {
        "id": row["id"],
        "object": "attempt",
        "job_id": row["job_id"],
        "batch_id": row["batch_id"] or None,
        "tenant": row["tenant"],
        "no": row["no"],
        "step": row["step"],
        "provider": row["provider"],
        "model": row["model"],
        "key": row["key"],
        "started_at": row["started_at"],
        "failure": row["failure"],
        "status": row["status"],
        "latency_ms": row["latency_ms"],
        "possibly_billed": row["possibly_billed"],
        "message": row["message"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cost_usd": row["cost_usd"],
    }


def attempt_summary(attempt: AttemptRecord) -> AttemptSummary:
    """From a call that was just made."""
    return {
        "provider": attempt.provider,
        "model": attempt.model,
        "failure": attempt.cls,
        "status": attempt.status,
        "latency_ms": attempt.latency_ms,
        "possibly_billed": attempt.possibly_billed,
        "message": attempt.message,
    }
