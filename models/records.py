"""The values that travel between the store and those who use it. Plain data, no behaviour.

All times are unix seconds of the ledger's clock unless a name ends in `_s` (a duration in seconds)
or `_ms` (whole milliseconds).
"""

from dataclasses import dataclass, field
from typing import Any

from understudy.models.failure import FailureClass
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain
from understudy.models.state import BatchState, JobState, Priority

SINGLE = ""
"""The batch id of jobs that were submitted alone."""


@dataclass(slots=True)
class NewBatch:
    id: str
    priority: Priority = Priority.BULK
    tenant: str = "default"
    endpoint: str = "/v1/chat/completions"
    expires_at: float = 0.0
    identity: str | None = None  # of a `run`'s batch: the run's id, a hyphen, and something of its own
    retry_of: str | None = None
    source: str = ""  # name of the input, for people
    metadata: dict[str, str] = field(default_factory=dict)
    input_file_id: str | None = None
    completion_window: str = "24h"  # as the caller wrote it
    options: str | None = None  # JSON: what shapes its lines, for who writes them later
    callback_url: str | None = None
    output_expires_s: float | None = None  # after its end
    request_hash: str | None = None  # of the whole create request
    weight: float = 1.0  # its share when batches of one tenant and priority take turns
    budget_usd: float | None = None
    runs_until: float | None = None  # of a `run`: 0.0, until its process says that it lives


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch is expected to cost. `usd` None: no price is known; `unpriced_lines` are those without one."""

    usd: float | None = None
    unpriced_lines: int = 0


@dataclass(slots=True)
class NewJob:
    id: str
    body: str  # the chat-completion body as JSON, without model, fallbacks and the other words of ours
    chain: Chain
    custom_id: str
    line: int = 0  # 1-based line of the input, 0 for single jobs
    tokens: int = 0  # estimated input tokens
    max_output_tokens: int = 0  # the most that its answer may have; 0: the request does not say
    priority: Priority = Priority.BULK
    tenant: str = "default"
    not_before: float = 0.0
    expires_at: float = 0.0
    expires_in_s: float | None = None  # in place of `expires_at`: from its acceptance, by the ledger's clock
    extra: str | None = None  # JSON that the output needs again, e.g. the CSV columns of the line
    callback_url: str | None = None
    metadata: dict[str, str] | None = None  # of a job that is submitted alone
    needs: Needs | None = None  # while its input is read; None: text alone, or not known
    named: bool = False  # `custom_id` is the caller's own, not made of the line's number


@dataclass(frozen=True, slots=True)
class RunLine:
    """A line of a run's input as it is today. `job_id` None: it is to be compared with what was asked before."""

    position: int  # among the lines, from 1
    line: int
    name: str
    named: bool
    request: str  # hash of what the model is asked
    chain_id: str
    extra: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class ComparedLine:
    """A line of a run's input beside what was asked for it before; without a `state` nothing was."""

    position: int
    line: int
    name: str
    named: bool
    chain_id: str
    was: int | None  # its position in the version before
    state: JobState | None
    batch_id: str | None
    batch_state: BatchState | None
    job_chain: str | None
    again_id: str | None
    failure: FailureClass | None  # of a failed one


@dataclass(frozen=True, slots=True)
class Displaced:
    """What stood in the place of a line whose request is another one now."""

    answered: bool
    cost_usd: float | None  # None: unknown


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a run's lines: how many there are, and how they stand. The rest is open."""

    total: int
    succeeded: int
    failed: int  # ended without an answer
    fallbacks: int  # answered by another step than the first


@dataclass(frozen=True, slots=True)
class Lane:
    """The queued jobs of one batch (or of one tenant's single jobs) that share a chain: what takes turns."""

    batch_id: str
    tenant: str
    chain_id: str
    priority: Priority


@dataclass(frozen=True, slots=True)
class OpenLane:
    """A lane with jobs that may start now, and its share when turns are taken.

    `ready` is how many they are, those with tickets included, counted no further than was asked.
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
    """A job that this worker has claimed: everything needed to run it."""

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
    attempts: int = 0  # attempts already recorded, so that numbering goes on
    batch_budget: bool = False  # its batch has a budget
    tenant_budget: bool = False  # its tenant has one
    large_bytes: int = 0  # of a body that is not here: `Store.claims.with_prompt` reads it when there is room


@dataclass(slots=True)
class AttemptRecord:
    """One provider call. `cls` None means it answered."""

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
    unpriced: bool = False  # its cost is not known: of the tokens that it used no price is
    possibly_billed: bool = False


@dataclass(slots=True)
class ResultRecord:
    """The one terminal record of a job that succeeded or failed.

    `body` is the chat completion, or an HTTP answer's error in OpenAI's form, with `extra_fields`; `error` is set when
    no HTTP answer exists to show.
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
    unpriced: bool = False  # no price of its answer is known
    latency_ms: int = 0
    failure: FailureClass | None = None  # of a job that failed
    step: str | None = None  # whose error that is, "provider/model"; None: no step's


@dataclass(slots=True)
class Settled:
    """What became of a claimed job: terminal with a result, or put back (`state` QUEUED) with a time."""

    job_id: str
    batch_id: str
    claim_no: int
    state: JobState
    attempts: list[AttemptRecord] = field(default_factory=list)
    result: ResultRecord | None = None
    not_before: float = 0.0
    progress: dict[str, Any] | None = None
    wait_reason: str | None = None  # for people: why it was put back
    tenant: str = "default"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a batch waits for, as the planner saw it a moment ago.

    `hold` is the kind: of the limiter's holds (`requests`, `tokens`, `in_flight`, `cooldown`, `breaker` and whatever
    else it knows), or `credential` (a person must mend one), `rules` (data rules allow no step), `budget`, `turn`
    (others go first). `reason` is a sentence for people. `until` is the earliest time at which it may go on; None when
    nobody can tell.
    """

    reason: str
    hold: str
    provider: str | None = None
    model: str | None = None
    account: str | None = None  # unique over providers, such as "openai:main"
    until: float | None = None


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
    paused: str | None  # why it is held
    retry_of: str | None
    counts: dict[JobState, int]
    cost_usd: float
    fallbacks: int
    by_deployment: list["DeploymentTally"]
    recent_per_s: float  # jobs that end per second, as `models.jobs.pace` has it
    waits: list[tuple[str, int]]  # why queued jobs wait, and how many (a sample)
    endpoint: str = "/v1/chat/completions"
    completion_window: str = "24h"
    input_file_id: str | None = None
    output_file_id: str | None = None  # None until it has ended, and when no job succeeded
    error_file_id: str | None = None  # None until it has ended, and when every job succeeded
    metadata: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] | None = None  # of a failed one, as `models.request.wire.LineError`
    options: dict[str, Any] = field(default_factory=dict)  # the words about routing that it was accepted with
    callback_url: str | None = None
    started_at: float | None = None  # when it became in_progress
    cancelling_at: float | None = None
    weight: float = 1.0
    budget_usd: float | None = None  # with what was granted beyond it
    estimated_usd: float | None = None  # what it was expected to cost when it was accepted
    waiting: Waiting | None = None  # None: it moves, it is held or has ended, or nobody plans
    unpriced_lines: int = 0  # those that the estimate leaves out
    pause_kind: PauseKind | None = None  # of `paused`
    blocked: str | None = None  # what a person must fix before it goes on, though it is not held
    retries: list[str] = field(default_factory=list)  # the batches that try it again, oldest first

    @property
    def estimate(self) -> Estimate:
        """What it was expected to cost when it was accepted."""
        return Estimate(self.estimated_usd, self.unpriced_lines)

    @property
    def known_cost_usd(self) -> float | None:
        """What it cost so far; None when of all that was used no price is known."""
        return self.cost_usd if self.cost_usd or not self.unpriced_calls else None

    @property
    def unpriced_calls(self) -> int:
        """Its calls that `cost_usd` leaves out, because no price is known."""
        return sum(each.unpriced_calls for each in self.by_deployment)


@dataclass(slots=True)
class DeploymentTally:
    provider: str
    model: str
    answered: int = 0
    fallbacks: int = 0  # answered, but not as the first step
    failures: dict[str, int] = field(default_factory=dict)  # failure class -> count of calls
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0  # which the cost leaves out, because no price is known

    @property
    def known_cost_usd(self) -> float | None:
        """What it cost so far; None when of all that was used no price is known."""
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
    cost_usd: float | None  # None: no price is known
    extra: str | None
    waited_for: str | None = None  # of one that expired: what kept it or its batch from going on


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as its row says. The bytes of an upload are kept by the API, an output's are read from the results."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int | None  # None: not measured yet
    lines: int  # of an upload: those that are not blank
    batch_id: str | None  # whose output it is; None for an upload
    part: str | None  # "output" or "error"; None for an upload
    created_at: float
    expires_at: float | None
