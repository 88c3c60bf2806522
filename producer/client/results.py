"""Return values of the client: immutable. Times are Unix seconds, costs are US dollars."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.views import BatchView, JobView, OutputRow
from understudy.models.objects.job import job_object
from understudy.models.routing.chain import Chain
from understudy.models.state import OPEN_BATCH_STATES, TERMINAL_STATES, BatchState, JobState
from understudy.producer.client.errors import NoAnswer
from understudy.producer.runs.output import completion_text, error_text, output_line

T = TypeVar("T")

SHORT_CHARS = 300
"""Characters of a provider's error in an exception message."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to a provider. `failure` None: it was answered."""

    provider: str
    model: str
    failure: str | None
    status: int | None
    latency_ms: int
    possibly_billed: bool
    message: str | None

    @classmethod
    def of(cls, shown: Mapping[str, Any]) -> "Attempt":
        words: dict[str, Any] = {word: shown.get(word) for word in ("failure", "status", "possibly_billed", "message")}
        latency_ms = shown.get("latency_ms", shown.get("latency"))  # "latency": in results of earlier versions
        return cls(shown["provider"], shown["model"], latency_ms=latency_ms, **words)


@dataclass(frozen=True, slots=True)
class Job:
    """The state of a job. Its answer is in `Result`.

    `wait_reason`: why an open job was put back; `wait_until`: until when. `cost_usd`: the total cost of its calls;
    None: the price of one is unknown. `attempts` is empty in lists.
    """

    id: str
    state: JobState
    custom_id: str
    batch_id: str | None
    chain: tuple[str, ...]
    priority: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    expires_at: float
    metadata: Mapping[str, str]
    callback_url: str | None
    wait_reason: str | None
    wait_until: float | None
    provider: str | None
    model: str | None
    cost_usd: float | None
    error: str | None
    attempts: tuple[Attempt, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @classmethod
    def of(cls, view: JobView, chain: Chain) -> "Job":
        """From a job's view in the ledger, converted like for HTTP and webhooks."""
        shown: Mapping[str, Any] = job_object(view, chain, "")
        as_it_is = ("id", "custom_id", "batch_id", "priority", "metadata", "callback_url", "wait_reason", "wait_until")
        return cls(
            state=view.state,
            chain=tuple(shown["chain"]),
            error=shown["error"] and shown["error"]["message"],
            attempts=tuple(Attempt.of(call) for call in shown.get("attempts", ())),
            **{name: getattr(view, name) for name in ("created_at", "started_at", "ended_at", "expires_at")},
            **{name: shown[name] for name in (*as_it_is, "provider", "model", "cost_usd")},
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a finished job, or of a line of a batch.

    `line`: the line of OpenAI's batch output: `custom_id`, `response`, `error`. `cost_usd`: the cost of the call that
    answered; None: unknown price.
    """

    job_id: str
    custom_id: str
    state: JobState
    provider: str | None
    model: str | None
    cost_usd: float | None
    line: Mapping[str, Any] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.state is JobState.SUCCEEDED and bool(self._body)

    @property
    def text(self) -> str:
        """The text of the first choice; tool calls as JSON; for embeddings, the first vector. Raises NoAnswer."""
        return completion_text(self.completion)

    @property
    def completion(self) -> dict[str, Any]:
        """The OpenAI chat completion (or embeddings), with `extra_fields`. Raises NoAnswer."""
        if not self.ok:
            raise NoAnswer(self._why(), self)
        return dict(self._body)

    @property
    def error(self) -> str | None:
        """Why there is no answer: the error of the provider, or ours; None for a successful job."""
        return None if self.state is JobState.SUCCEEDED else error_text(dict(self.line))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The calls that led to this result, as listed in its `extra_fields`."""
        where = self._body or self.line["error"] or {}
        return tuple(Attempt.of(call) for call in where.get("extra_fields", {}).get("attempts", ()))

    @property
    def _body(self) -> dict[str, Any]:
        body = self.line["response"]["body"] if self.line["response"] else None
        return body if isinstance(body, dict) else {}

    def _why(self) -> str:
        if self.state is JobState.SUCCEEDED:
            return f"the answer of {self.job_id} was deleted from the ledger"
        return f"{self.job_id} has no answer; it is {self.state}: {(self.error or '')[:SHORT_CHARS]}"

    @classmethod
    def of(cls, row: OutputRow) -> "Result":
        return cls(row.job_id, row.custom_id, row.state, row.provider, row.model, row.cost_usd, output_line(row))


@dataclass(frozen=True, slots=True)
class Batch:
    """The state of a batch, without its retries.

    `counts`: number of jobs by state. `paused`: why it is paused until `resume_batch`; `pause_kind`: by what.
    `waiting`: why it makes no progress although it is not paused. `cost_usd` None: unknown price. `errors`: those of a
    rejected input.
    """

    id: str
    state: BatchState
    priority: str
    source: str
    total: int
    counts: Mapping[JobState, int]
    created_at: float
    ended_at: float | None
    expires_at: float
    paused: str | None
    pause_kind: PauseKind | None
    waiting: str | None
    retry_of: str | None
    retries: tuple[str, ...]
    cost_usd: float | None
    budget_usd: float | None
    estimated_usd: float | None
    metadata: Mapping[str, str]
    callback_url: str | None
    errors: Sequence[Mapping[str, Any]]

    @property
    def ended(self) -> bool:
        return self.state not in OPEN_BATCH_STATES

    @property
    def succeeded(self) -> int:
        return self.counts.get(JobState.SUCCEEDED, 0)

    @property
    def unanswered(self) -> int:
        """The number of jobs that ended without an answer: failed, cancelled or expired."""
        return sum(self.counts.get(state, 0) for state in TERMINAL_STATES) - self.succeeded

    @classmethod
    def of(cls, view: BatchView) -> "Batch":
        same = ("id", "state", "source", "total", "created_at", "ended_at", "expires_at", "paused", "retry_of")
        more = ("pause_kind", "budget_usd", "estimated_usd", "metadata", "callback_url")
        return cls(
            priority=view.priority.queue,
            counts=dict(view.counts),
            waiting=view.blocked or (view.waiting.reason if view.waiting else None),
            retries=tuple(view.retries),
            cost_usd=view.known_cost_usd,
            errors=tuple(view.errors or ()),
            **{name: getattr(view, name) for name in (*same, *more)},
        )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list. `next_after`: the `after` of the next page; None: this is the last page."""

    items: tuple[T, ...]
    next_after: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
