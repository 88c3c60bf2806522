"""The values that travel between the store and its users. Plain data, no behaviour.

All times are unix seconds of the ledger's clock unless a name ends in `_s` (a duration in seconds) or `_ms` (whole
milliseconds).
"""

from dataclasses import dataclass, field
from typing import Any

from understudy.models.failure import FailureClass
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain
from understudy.models.state import BatchState, JobState, Priority

SINGLE = ""
"""The batch id of single jobs."""


@dataclass(slots=True)
class NewBatch:
    id: str
    priority: Priority = Priority.BULK
    tenant: str = "default"
    endpoint: str = "/v1/chat/completions"
    expires_at: float = 0.0
    identity: str | None = None  # of a `run`'s batch: the run's id, a hyphen, and a unique part
    retry_of: str | None = None
    source: str = ""  # name of the input, for people
    metadata: dict[str, str] = field(default_factory=dict)
    input_file_id: str | None = None
    completion_window: str = "24h"  # as the caller wrote it
    options: str | None = None  # JSON: settings for its lines, for the process that writes them later
    callback_url: str | None = None
    output_expires_s: float | None = None  # after its end
    request_hash: str | None = None  # of the whole create request
    weight: float = 1.0  # its share when batches of one tenant and priority take turns
    budget_usd: float | None = None
    runs_until: float | None = None  # of a `run`: 0.0 until its process renews it


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of a batch. `usd` None: no price is known; `unpriced_lines` are those without one."""

    usd: float | None = None
    unpriced_lines: int = 0


@dataclass(slots=True)
class NewJob:
    id: str
    body: str  # the chat-completion body as JSON, without model, fallbacks and our other routing options
    chain: Chain
    custom_id: str
    line: int = 0  # 1-based line of the input, 0 for single jobs
    tokens: int = 0  # estimated input tokens
    max_output_tokens: int = 0  # maximum tokens of its answer; 0: the request does not say
    priority: Priority = Priority.BULK
    tenant: str = "default"
    not_before: float = 0.0
    expires_at: float = 0.0
    expires_in_s: float | None = None  # instead of `expires_at`: relative to acceptance, by the ledger's clock
    extra: str | None = None  # JSON that the output repeats, e.g. the CSV columns of the line
    callback_url: str | None = None
    metadata: dict[str, str] | None = None  # of a job that is submitted alone
    needs: Needs | None = None  # while its input is read; None: text only, or unknown
    named: bool = False  # `custom_id` is the caller's own, not derived from the line number


@dataclass(frozen=True, slots=True)
class RunLine:
    """A line of a run's current input. `job_id` None: it is to be compared with earlier requests."""

    position: int  # among the lines, from 1
    line: int
    name: str
    named: bool
    request: str  # hash of what is sent to the model
    chain_id: str
    extra: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class ComparedLine:
    """A line of a run's input with the earlier request for it; without a `state` there was none."""

    position: int
    line: int
    name: str
    named: bool
    chain_id: str
    was: int | None  # its position in the previous version
    state: JobState | None
    batch_id: str | None
    batch_state: BatchState | None
    job_chain: str | None
    again_id: str | None
    failure: FailureClass | None  # of a failed one


@dataclass(frozen=True, slots=True)
class Displaced:
    """The line that a changed line replaced."""

    answered: bool
    cost_usd: float | None  # None: unknown


@dataclass(frozen=True, slots=True)
class Standing:
    """The number of a run's lines, and their states. The rest is open."""

    total: int
    succeeded: int
    failed: int  # ended without an answer
    fallbacks: int  # answered by a step other than the first


@dataclass(frozen=True, slots=True)
class Lane:
    """The queued jobs of one batch (or of one tenant's single jobs) that share a chain: the unit of fair sharing."""

    batch_id: str
    tenant: str
    chain_id: str
    priority: Priority


@dataclass(frozen=True, slots=True)
class OpenLane:
    """A lane with jobs that may start now, and its share.

    `ready` counts them, including those with tickets, up to the requested maximum.
    """

    lane: Lane
    ready: int
    batch_weight: float = 1.0
    tenant_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Head:
    """A queued job that may start now, as the planner sees it."""

    id: str
    tokens: int
    max_output_tokens: int = 0  # 0: the request does not say


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
    waiting: "Waiting | None" = None  # why it was put back
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a batch waits for, as the planner saw it a moment ago, or a job, as the worker that put it back wrote it.

    `hold` is the kind: one of the limiter's (`requests`, `tokens`, `in_flight`, `cooldown`, `breaker` and others), or
    `credential` (a person must fix one), `rules` (data rules allow no step), `budget`, `turn` (others go first),
    `put_back` (the time of the job has not come).
    `reason` is a readable sentence. `until` is the earliest time at which it may continue; None if unknown.
    """

    reason: str
    hold: str
    provider: str | None = None
    model: str | None = None
    account: str | None = None  # unique across providers, such as "openai:main"
    until: float | None = None

    @property
    def sentence(self) -> str:
        """For people, with the account and without `until`."""
        return f"{self.reason} (account {self.account})" if self.account else self.reason


@dataclass(slots=True)
class BatchView:
    """A batch as people see it: its row and the sums of its tallies."""

    id: str
    state: BatchState
    tenant: str
    priority: Priority
    source: str
    total: int
    created_at: float
    expires_at: float
    ended_at: float | None
    paused: str | None  # why it is paused
    retry_of: str | None
    counts: dict[JobState, int]
    cost_usd: float
    fallbacks: int
    by_deployment: list["DeploymentTally"]
    recent_per_s: float  # jobs that end per second, as defined in `models.jobs.pace`
    waits: list[tuple[str, int]]  # why queued jobs wait, and how many (a sample)
    endpoint: str = "/v1/chat/completions"
    completion_window: str = "24h"
    input_file_id: str | None = None
    output_file_id: str | None = None  # None until it has ended, and if no job succeeded
    error_file_id: str | None = None  # None until it has ended, and if every job succeeded
    metadata: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] | None = None  # of a failed one, as `models.request.wire.LineError`
    options: dict[str, Any] = field(default_factory=dict)  # the routing options that it was accepted with
    callback_url: str | None = None
    started_at: float | None = None  # when it became in_progress
    cancelling_at: float | None = None
    weight: float = 1.0
    budget_usd: float | None = None  # including grants
    estimated_usd: float | None = None  # estimated cost when accepted
    waiting: Waiting | None = None  # None: it progresses, is paused or has ended, or no planner runs
    unpriced_lines: int = 0  # lines that the estimate leaves out
    pause_kind: PauseKind | None = None  # of `paused`
    blocked: str | None = None  # what a person must fix before it continues, though it is not paused
    retries: list[str] = field(default_factory=list)  # its retries, oldest first

    @property
    def estimate(self) -> Estimate:
        """The estimated cost when it was accepted."""
        return Estimate(self.estimated_usd, self.unpriced_lines)

    @property
    def known_cost_usd(self) -> float | None:
        """The cost so far; None if nothing used has a known price."""
        return self.cost_usd if self.cost_usd or not self.unpriced_calls else None

    @property
    def unpriced_calls(self) -> int:
        """Its calls that `cost_usd` leaves out, because they have no known price."""
        return sum(each.unpriced_calls for each in self.by_deployment)


@dataclass(slots=True)
class DeploymentTally:
    provider: str
    model: str
    answered: int = 0
    fallbacks: int = 0  # answered by a step other than the first
    failures: dict[str, int] = field(default_factory=dict)  # failure class -> count of calls
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0  # calls that the cost leaves out, because they have no known price

    @property
    def known_cost_usd(self) -> float | None:
        """The cost so far; None if nothing used has a known price."""
        return self.cost_usd if self.cost_usd or not self.unpriced_calls else None


@dataclass(slots=True)
class OutputRow:
    """A terminal job with its result, for the output file. Succeeded and failed have `status_code`/`body`."""

    job_id: str
    custom_id: str
    line: int
    state: JobState
    status_code: int | None
    body: str | None
    error: dict[str, Any] | None
    provider: str | None
    model: str | None
    cost_usd: float | None  # None: no known price
    extra: str | None
    waited_for: str | None = None  # of an expired job: what kept it or its batch from completing


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's row. The API stores the bytes of an upload; an output is read from the results."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int | None  # None: not measured yet
    lines: int  # of an upload: lines that are not blank
    batch_id: str | None  # the batch whose output it is; None for an upload
    part: str | None  # "output" or "error"; None for an upload
    created_at: float
    expires_at: float | None
