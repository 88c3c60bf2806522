"""A job as callers see it, over HTTP, on the command line and in webhooks, and the response for a finished job."""

import math
from typing import Any, Final, Literal, NotRequired

import orjson
from typing_extensions import TypedDict

from understudy.models.jobs.error_object import error_object
from understudy.models.jobs.views import JobView
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.objects.attempt import AttemptObject
from understudy.models.objects.shapes import ErrorObject, Page, described
from understudy.models.objects.waiting import WaitingObject, waiting_object
from understudy.models.routing.chain import Chain
from understudy.models.state import JobState, Priority, PriorityWord

SCHEDULED: Final = "scheduled"
LONGEST_RETRY_S = 60
RETRY_S = {Priority.INTERACTIVE: 1, Priority.NORMAL: 2, Priority.BULK: 10}
"""Seconds after which a poller should ask again."""

NO_RESULT_STATUS = 409
"""The status for a job that ended without a result. Pollers and SDKs would retry on 408, 429, 502, 503 and 504."""

WITHOUT_RESULT = {
    JobState.CANCELLED: ("job_cancelled", "the job was cancelled before it ended"),
    JobState.EXPIRED: ("job_expired", "the job could not be completed before its deadline"),
}
StateWord = Literal["queued", "scheduled", "running", "succeeded", "failed", "cancelled", "expired"]


class JobLinks(TypedDict):
    self: str
    result: str


@described
class JobObject(TypedDict):
    """A job without its prompt and answer. Times are unix seconds."""

    id: str
    object: Literal["job"]
    state: StateWord
    """`scheduled`: a queued job whose start time has not come."""
    created_at: int
    started_at: int | None
    ended_at: int | None
    expires_at: int
    custom_id: str
    """The caller's name for the job."""
    batch_id: str | None
    """null for a job that was submitted alone."""
    tenant: str
    endpoint: str
    chain: list[str]
    """The chain's steps, in order."""
    priority: PriorityWord
    metadata: dict[str, str]
    callback_url: str | None
    extra: dict[str, Any] | None
    """The columns of a CSV line."""
    cancel_requested: bool
    wait_reason: str | None
    """Why a job that has not ended was put back."""
    wait_until: int | None
    """When a `scheduled` job may start."""
    waiting: WaitingObject | None
    """What a queued job waits for, if known."""
    provider: str | None
    """The provider of the answer, or of the final error."""
    model: str | None
    cost_usd: float | None
    """Cost of all calls; null if the price of any call is unknown."""
    attempt_count: int
    error: ErrorObject | None
    """Why the job ended without an answer."""
    links: JobLinks
    attempts: NotRequired[list[AttemptObject]]
    """The job's calls; not in lists of jobs."""
    result: NotRequired[Any]
    """Only in webhooks and `understudy watch --json`: the completion; null if there is none, or if it is too large for
    a webhook."""
    result_url: NotRequired[str]
    """Only next to `result`."""


@described
class JobList(Page):
    data: list[JobObject]


def state_of(view: JobView) -> StateWord:
    """The state, with "scheduled" for a job that waits for its start time."""
    return SCHEDULED if view.is_scheduled else view.state.value


def retry_after_s(view: JobView) -> int:
    """Seconds until the next poll makes sense; for a scheduled job, until its start."""
    usual = RETRY_S[view.priority]
    return max(usual, min(LONGEST_RETRY_S, math.ceil(view.not_before - view.now))) if view.is_scheduled else usual


def job_object(view: JobView, chain: Chain, root: str, waiting: Waiting | None = None) -> JobObject:
    """A job as JSON, with its calls if they were read. Contains neither prompt nor answer.

    `root` is the part of links before the path. `waiting` replaces the wait reason stored in the job's row.
    """
    put_back_for = None if view.has_ended else view.put_back_for
    shown: JobObject = {
        "id": view.id,
        "object": "job",
        "state": state_of(view),
        "created_at": int(view.created_at),
        "started_at": _seconds(view.started_at),
        "ended_at": _seconds(view.ended_at),
        "expires_at": int(view.expires_at),
        "custom_id": view.custom_id,
        "batch_id": view.batch_id or None,
        "tenant": view.tenant,
        "endpoint": chain.endpoint,
        "chain": [str(step) for step in chain.steps],
        "priority": view.priority.queue,
        "metadata": view.metadata,
        "callback_url": view.callback_url,
        "extra": orjson.loads(view.extra) if view.extra else None,
        "cancel_requested": view.cancel_requested,
        "wait_reason": None if put_back_for is None else put_back_for.sentence,
        "wait_until": math.ceil(view.not_before) if view.is_scheduled else None,
        "waiting": waiting_object(waiting or view.waiting),
        "provider": view.provider,
        "model": view.model,
        "cost_usd": view.spent_usd,
        "attempt_count": view.attempts,
        "error": error_of(view)[1] if view.has_ended and view.state is not JobState.SUCCEEDED else None,
        "links": {"self": f"{root}/v1/jobs/{view.id}", "result": f"{root}/v1/jobs/{view.id}/result"},
    }
    if view.calls is not None:
        shown["attempts"] = view.calls
    return shown


def with_result(shown: JobObject, answer: str | None) -> JobObject:
    """A job with its result; `answer` is the completion as JSON, or None."""
    result = None if answer is None else orjson.Fragment(answer)
    return {**shown, "result": result, "result_url": shown["links"]["result"]}


def error_of(view: JobView) -> tuple[int, ErrorObject]:
    """The status and OpenAI-style error of a job that ended without success; the provider's own message is kept."""
    if view.state in WITHOUT_RESULT:
        code, message = WITHOUT_RESULT[view.state]
        if view.state is JobState.EXPIRED and view.put_back_for is not None:
            message += f": {view.put_back_for.sentence}"
        return NO_RESULT_STATUS, error_object(NO_RESULT_STATUS, None, message, code)
    if view.status_code is None or not 400 <= view.status_code <= 599:
        return 502, error_object(502, view.error)
    return view.status_code, error_object(view.status_code, _parsed(view.error_body))


def extra_fields_of(view: JobView) -> dict[str, Any] | None:
    """The attempts stored in the error body of a failed job, if any."""
    body = _parsed(view.error_body) if view.error_body else view.error
    fields = body.get("extra_fields") if isinstance(body, dict) else None
    return fields if isinstance(fields, dict) else None


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)


def _parsed(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
