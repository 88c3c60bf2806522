"""Jobs and batches as people and callers see them.

All times are unix seconds of the ledger's clock.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.submission import Estimate
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.objects.attempt import AttemptObject
from understudy.models.state import TERMINAL_STATES, BatchState, JobState, Priority

OUTPUT, ERRORS = "output", "error"
"""The parts of a batch's results, one file each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as people and callers see it, without its prompt and answer."""

    id: str
    tenant: str
    batch_id: str  # SINGLE: it was submitted alone
    custom_id: str
    line: int
    chain_id: str
    priority: Priority
    state: JobState
    created_at: float
    started_at: float | None  # latest claim
    ended_at: float | None
    expires_at: float
    not_before: float  # 0: never put back
    now: float  # when it was read
    cancel_requested: bool
    callback_url: str | None
    metadata: dict[str, str]
    extra: str | None  # JSON that the output repeats, e.g. the CSV columns of the line
    attempts: int  # provider calls recorded so far
    calls: list[AttemptObject] | None  # in order; None: not read
    put_back_for: Waiting | None  # why it was put back the last time; `until` None
    spent_usd: float | None  # cost of all calls; None: one has no known price
    answer_bytes: int
    status_code: int | None  # of the terminal record, like what follows
    error_body: str | None  # the provider's error body of a failed job
    error: dict[str, Any] | None  # if there was no HTTP answer
    provider: str | None
    model: str | None
    cost_usd: float | None  # of the call that answered; None: no known price

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def is_scheduled(self) -> bool:
        """Whether it waits for its start time."""
        return self.state is JobState.QUEUED and self.not_before > self.now

    @property
    def waiting(self) -> Waiting | None:
        """What a put-back job waits for; `until` None: its time has come and it waits to be staged."""
        if self.state is not JobState.QUEUED or self.put_back_for is None:
            return None
        return replace(self.put_back_for, until=self.not_before if self.is_scheduled else None)


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
