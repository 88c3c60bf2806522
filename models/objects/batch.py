"""A batch over HTTP and on the command line: OpenAI's batch object, with our fields under `understudy`."""

from collections.abc import Sequence
from typing import Literal, cast

from typing_extensions import TypedDict

from understudy.models.jobs.pace import eta_s
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.views import BatchView, DeploymentTally
from understudy.models.jobs.wait_reasons import OPERATOR, OWNER, WHO_CAN_HELP, Helper, Waiting
from understudy.models.objects.shapes import Page, described
from understudy.models.objects.waiting import WaitingObject, waiting_object
from understudy.models.state import OPEN_BATCH_STATES, TERMINAL_STATES, BatchState, JobState, PriorityWord

StatusWord = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


PAUSED_CODE = "batch_paused"
"""The code in `errors` of a batch that waits for someone to act, whatever its status."""


@described
class BatchError(TypedDict):
    """One entry of `errors`."""

    code: str
    message: str
    param: str | None
    line: int | None
    """Line of the input file, from 1."""


@described
class BatchErrors(TypedDict):
    object: Literal["list"]
    data: list[BatchError]


@described
class RequestCounts(TypedDict):
    total: int
    """0 until the whole file has been read."""
    completed: int
    failed: int
    """Lines that ended without an answer, including cancelled and expired ones."""


@described
class InputDetails(TypedDict):
    cached_tokens: int


@described
class OutputDetails(TypedDict):
    reasoning_tokens: int


@described
class BatchUsage(TypedDict):
    """Over all provider calls of the batch."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


@described
class DeploymentShare(TypedDict):
    provider: str
    model: str
    answered: int
    share: float | None
    """Share of all answers, from 0 to 1."""
    fallbacks: int
    """Answers it gave as a fallback."""
    failures: dict[str, int]
    """Failed calls by failure class."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """Part of the input tokens, read from the provider's cache."""
    reasoning_tokens: int
    """Part of the output tokens."""
    cost_usd: float | None
    """null if no price is known."""
    unpriced_calls: int
    """Calls not included in the cost, because no price is known."""


@described
class Wait(TypedDict):
    reason: str
    count: int


class BatchTimes(TypedDict):
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None


@described
class UnderstudyFields(TypedDict):
    """Fields that OpenAI's batch object does not have."""

    cost_usd: float | None
    """Cost so far; null if no price is known for any of it."""
    unpriced_calls: int
    """Calls not included in the cost, because no price is known."""
    estimated_cost_usd: float | None
    """Expected cost when its lines were read; null if no price is known."""
    unpriced_lines: int
    """Lines not included in the estimate, because the price of their model was unknown."""
    budget_usd: float | None
    """Budget, including later grants. The batch is paused before it costs more."""
    reserved_usd: float | None
    """Part of the budget reserved by calls in flight; null without a budget."""
    by_provider: list[DeploymentShare]
    rate_per_s: float
    """Lines that end per second, over the last minute or since the first call, whichever is shorter."""
    eta_s: float | None
    """Seconds left at that rate."""
    waiting: WaitingObject | None
    """What it currently waits for; null while it makes progress, is paused or has ended."""
    who_can_help: Helper | None
    """Who has to act before it can continue: the operator of Understudy, or the owner of the batch."""
    waits: list[Wait]
    """Why individual lines were put back, from a sample."""
    counts: dict[str, int]
    """Lines by state."""
    fallbacks: int
    """Lines answered by a fallback."""
    fallback_share: float | None
    """Share of fallbacks among the answers so far, from 0 to 1."""
    tenant: str
    source: str
    """Name of the input, or its file id."""
    priority: PriorityWord
    weight: float
    """Turns it gets for each turn of another batch of the same tenant and priority with weight 1."""
    paused: str | None
    """Why it is paused."""
    pause_kind: PauseKind | None
    """What paused it; `stopped` means that its `run` has ended or died."""
    blocked: str | None
    """What someone has to fix before it can continue, although it is not paused."""
    retry_of: str | None
    retries: list[str]
    """Batches that retry lines of this one, oldest first."""
    webhook_url: str | None


@described
class BatchObject(BatchTimes):
    """OpenAI's batch. Times are unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str | None
    completion_window: str
    status: StatusWord
    output_file_id: str | None
    """null before the end, if no line was answered, and after the file was deleted."""
    error_file_id: str | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    understudy: UnderstudyFields


@described
class BatchList(Page):
    data: list[BatchObject]


def batch_object(view: BatchView, waiting: Waiting | None, reserved_usd: float | None = None) -> BatchObject:
    """`waiting`: as returned by `producer.status.waiting`; `reserved_usd`: reserved by calls in flight."""
    return {
        "id": view.id,
        "object": "batch",
        "endpoint": view.endpoint,
        "model": _model(view),
        "errors": _errors(view),
        "input_file_id": view.input_file_id,
        "completion_window": view.completion_window,
        "status": _status(view.state),
        "output_file_id": view.output_file_id,
        "error_file_id": view.error_file_id,
        **_times(view),
        "request_counts": _request_counts(view),
        "usage": _usage(view.by_deployment),
        "metadata": view.metadata or None,
        "understudy": _ours(view, waiting, reserved_usd),
    }


def _status(state: BatchState) -> StatusWord:
    """OpenAI has no status for a batch past its deadline whose last lines are being closed."""
    return "finalizing" if state is BatchState.EXPIRING else cast(StatusWord, state.value)


def _errors(view: BatchView) -> BatchErrors | None:
    """Why it failed; or why it waits, or waited until its deadline, for someone to act, so that pollers see it."""
    if view.errors is not None:
        return {"object": "list", "data": cast(list[BatchError], view.errors)}
    if view.state not in OPEN_BATCH_STATES | {BatchState.EXPIRED}:
        return None
    if view.paused:
        message = f"the batch is paused: {view.paused}; POST /v1/batches/{view.id}/resume lets it go on"
    elif view.blocked:
        message = f"the batch waits for the operator: {view.blocked}"
    else:
        return None
    return {"object": "list", "data": [{"code": PAUSED_CODE, "message": message, "param": None, "line": None}]}


def _times(view: BatchView) -> BatchTimes:
    """Finalizing takes no time: results are available as soon as the last line has ended."""
    return {
        "created_at": int(view.created_at),
        "in_progress_at": _seconds(view.started_at),
        "expires_at": int(view.expires_at),
        "finalizing_at": _seconds(_finalizing_at(view)),
        "completed_at": _ended_at(view, BatchState.COMPLETED),
        "failed_at": _ended_at(view, BatchState.FAILED),
        "expired_at": _ended_at(view, BatchState.EXPIRED),
        "cancelling_at": _seconds(view.cancelling_at),
        "cancelled_at": _ended_at(view, BatchState.CANCELLED),
    }


def _finalizing_at(view: BatchView) -> float | None:
    if view.state is BatchState.COMPLETED:
        return view.ended_at
    if view.state in (BatchState.EXPIRING, BatchState.EXPIRED):
        return max(view.expires_at, view.started_at or 0.0)
    return None


def _ended_at(view: BatchView, state: BatchState) -> int | None:
    return _seconds(view.ended_at) if view.state is state else None


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)


def _request_counts(view: BatchView) -> RequestCounts:
    """`failed` counts all lines without an answer, like the error file: also cancelled and expired ones."""
    completed = view.counts[JobState.SUCCEEDED]
    ended = sum(view.counts[state] for state in TERMINAL_STATES)
    return {"total": view.total, "completed": completed, "failed": ended - completed}


def _usage(deployments: list[DeploymentTally]) -> BatchUsage:
    """The usage of all provider calls, including those whose answers were not used."""
    read = sum(each.input_tokens for each in deployments)
    written = sum(each.output_tokens for each in deployments)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in deployments)},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": sum(each.reasoning_tokens for each in deployments)},
        "total_tokens": read + written,
    }


def _model(view: BatchView) -> str | None:
    """The model named in the request, or the only one that was called."""
    named = view.options.get("model") or view.options.get("chain")
    if named is not None:
        return str(named)
    asked = {f"{each.provider}/{each.model}" for each in view.by_deployment}
    return asked.pop() if len(asked) == 1 else None


def _ours(view: BatchView, waiting: Waiting | None, reserved_usd: float | None) -> UnderstudyFields:
    return {
        "cost_usd": _rounded(view.known_cost_usd),
        "unpriced_calls": view.unpriced_calls,
        "estimated_cost_usd": _rounded(view.estimated_usd),
        "unpriced_lines": view.unpriced_lines,
        "budget_usd": view.budget_usd,
        "reserved_usd": reserved_usd,
        "by_provider": deployment_shares(view.by_deployment),
        "rate_per_s": round(view.recent_per_s, 3),
        "eta_s": eta_s(view),
        "waiting": waiting_object(waiting),
        "who_can_help": _who_can_help(view, waiting),
        "waits": [{"reason": reason, "count": count} for reason, count in view.waits],
        "counts": {str(state): count for state, count in view.counts.items()},
        "fallbacks": view.fallbacks,
        "fallback_share": _fallback_share(view),
        "tenant": view.tenant,
        "source": view.source,
        "priority": view.priority.queue,
        "weight": view.weight,
        "paused": view.paused,
        "pause_kind": view.pause_kind,
        "blocked": view.blocked,
        "retry_of": view.retry_of,
        "retries": view.retries,
        "webhook_url": view.callback_url,
    }


def _who_can_help(view: BatchView, waiting: Waiting | None) -> Helper | None:
    if view.state not in OPEN_BATCH_STATES:
        return None
    if view.paused:
        return OWNER
    if view.blocked:
        return OPERATOR
    return None if waiting is None else WHO_CAN_HELP.get(waiting.hold)


def _fallback_share(view: BatchView) -> float | None:
    answered = view.counts.get(JobState.SUCCEEDED, 0)
    return round(view.fallbacks / answered, 4) if answered else None


def deployment_shares(tallies: Sequence[DeploymentTally]) -> list[DeploymentShare]:
    """The share of answers, failures, tokens and cost of each provider and model."""
    answers = sum(each.answered for each in tallies)
    return [_deployment_share(each, answers) for each in tallies]


def _deployment_share(tally: DeploymentTally, answers: int) -> DeploymentShare:
    return {
        "provider": tally.provider,
        "model": tally.model,
        "answered": tally.answered,
        "share": round(tally.answered / answers, 4) if answers else None,
        "fallbacks": tally.fallbacks,
        "failures": tally.failures,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "cached_tokens": tally.cached_tokens,
        "reasoning_tokens": tally.reasoning_tokens,
        "cost_usd": _rounded(tally.known_cost_usd),
        "unpriced_calls": tally.unpriced_calls,
    }


def _rounded(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 8)
