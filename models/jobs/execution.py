"""A job in a worker: what is claimed, called and settled.

All times are unix seconds of the ledger's clock unless a name ends in `_s` (a duration in seconds) or `_ms` (whole
milliseconds).
"""

from dataclasses import dataclass, field
from typing import Any

from understudy.models.failure import FailureClass
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.state import JobState, Priority


@dataclass(slots=True)
class StartedJob:
    """A job claimed by this worker: everything needed to run it."""

    id: str
    batch_id: str
    tenant: str
    claim_no: int
    chain_id: str
    priority: Priority
    body: str
    tokens: int
    expires_at: float
    progress: dict[str, Any] | None = None
    crashes: int = 0
    attempts: int = 0  # attempts already recorded; numbering continues
    batch_budget: bool = False  # its batch has a budget
    tenant_budget: bool = False  # its tenant has one
    large_bytes: int = 0  # of a body not loaded here: `Store.claims.with_prompt` reads it when there is room


@dataclass(slots=True)
class AttemptRecord:
    """One provider call. `cls` None: answered."""

    id: str
    no: int
    step: int
    provider: str
    model: str
    key: str
    cls: FailureClass | None
    status: int | None
    latency_ms: int
    started_at: float
    message: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input, read from the provider's cache
    reasoning_tokens: int = 0  # of the output
    cost_usd: float = 0.0
    unpriced: bool = False  # its cost is unknown: tokens it used have no known price
    possibly_billed: bool = False


@dataclass(slots=True)
class ResultRecord:
    """The single terminal record of a job that succeeded or failed.

    `body` is the chat completion, or an HTTP error in OpenAI's form, with `extra_fields`; `error` is set if there is no
    HTTP answer to show.
    """

    status_code: int | None
    body: str | None  # JSON
    error: dict[str, Any] | None = None
    provider: str | None = None
    model: str | None = None
    key: str | None = None
    fallback_index: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: bool = False  # its price is unknown
    latency_ms: int = 0
    failure: FailureClass | None = None  # of a job that failed
    step: str | None = None  # whose error that is, "provider/model"; None: no step's


@dataclass(slots=True)
class Settled:
    """The outcome of a claimed job: terminal with a result, or put back (`state` QUEUED) with a time."""

    job_id: str
    batch_id: str
    claim_no: int
    state: JobState
    attempts: list[AttemptRecord] = field(default_factory=list)
    result: ResultRecord | None = None
    not_before: float = 0.0
    progress: dict[str, Any] | None = None
    waiting: Waiting | None = None  # why it was put back
    tenant: str = "default"
