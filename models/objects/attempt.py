"""A provider call, as it appears in the log of calls, in jobs and in results."""

from collections.abc import Mapping
from typing import Any, Literal

from typing_extensions import TypedDict

from understudy.models.jobs.execution import AttemptRecord
from understudy.models.objects.shapes import Page, described


@described
class AttemptObject(TypedDict):
    """A provider call. Times are unix seconds."""

    id: str
    object: Literal["attempt"]
    job_id: str
    batch_id: str | None
    """null for a job that was submitted alone."""
    tenant: str
    no: int
    """The call's number within its job, from 1."""
    step: int
    """Index of the chain's step, from 0."""
    provider: str
    model: str
    key: str
    """Name of the credential."""
    started_at: float
    failure: str | None
    """Failure class; null for a call that was answered."""
    status: int | None
    """HTTP status; null without a response."""
    latency_ms: int
    possibly_billed: bool
    """The call failed but may be billed by the provider."""
    message: str | None
    """The provider's error message."""
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """null if no price is known."""


@described
class AttemptList(Page):
    data: list[AttemptObject]


class AttemptSummary(TypedDict):
    """A call in `extra_fields.attempts` of a job's result: a subset of the fields of `AttemptObject`."""

    provider: str
    model: str
    failure: str | None
    status: int | None
    latency_ms: int
    possibly_billed: bool
    message: str | None


def attempt_object(row: Mapping[str, Any]) -> AttemptObject:
    """`row`: of the table, with `cost_usd` None if the price is unknown."""
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
    """The summary of a call, for its job's result."""
    return {
        "provider": attempt.provider,
        "model": attempt.model,
        "failure": attempt.cls,
        "status": attempt.status,
        "latency_ms": attempt.latency_ms,
        "possibly_billed": attempt.possibly_billed,
        "message": attempt.message,
    }
