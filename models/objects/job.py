"""A job as callers see it, over HTTP, on the command line and in webhooks, and the response for a finished job."""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired

import orjson
from typing_extensions import TypedDict

from understudy.models.jobs.errors import error_object
from understudy.models.jobs.wait_reasons import from_json
from understudy.models.objects.attempt import AttemptObject, attempt_object
from understudy.models.objects.shapes import ErrorObject, described
from understudy.models.objects.waiting import WaitingObject, waiting_object
from understudy.models.records import Waiting
from understudy.models.routing.chain import Chain
from understudy.models.state import TERMINAL_STATES, JobState, Priority, PriorityWord

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
View = Mapping[str, Any]
"""A job as returned by `Store.jobs.seen` or `Store.jobs.page`."""

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
class JobList(TypedDict):
    object: Literal["list"]
    data: list[JobObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def has_ended(view: View) -> bool:
    return view["state"] in TERMINAL_STATES


def state_of(view: View, now: float) -> StateWord:
    """The state, with "scheduled" for a job that waits for its start time."""
    if view["state"] == JobState.QUEUED and view["not_before"] > now:
        return SCHEDULED
    state: StateWord = view["state"]
    return state


def waiting_of(view: View, now: float) -> Waiting | None:
    """What a put-back job waits for; `until` None: its time has come and it waits to be staged."""
    if view["state"] != JobState.QUEUED:
        return None
    return from_json(view["waiting"], view["not_before"] if view["not_before"] > now else None)


def wait_reason(view: View) -> str | None:
    """Why a job was put back the last time, for people."""
    waiting = from_json(view["waiting"])
    return None if waiting is None else waiting.sentence


def retry_after_s(view: View) -> int:
    """Seconds until the next poll makes sense; for a scheduled job, until its start."""
    usual = RETRY_S[Priority(view["priority"])]
    if state_of(view, view["now"]) != SCHEDULED:
        return usual
    until_due_s: float = view["not_before"] - view["now"]
    return max(usual, min(LONGEST_RETRY_S, math.ceil(until_due_s)))


def job_object(view: View, chain: Chain, root: str, waiting: Waiting | None = None) -> JobObject:
    """A job as JSON, with its calls if they were read. Contains neither prompt nor answer.

    `root` is the part of links before the path. `waiting` replaces the wait reason stored in the job's row.
    """
    scheduled = state_of(view, view["now"]) == SCHEDULED
    open_job = not has_ended(view)
    shown: JobObject = {
        "id": view["id"],
        "object": "job",
        "state": state_of(view, view["now"]),
        "created_at": int(view["created_at"]),
        "started_at": _seconds(view["started_at"]),
        "ended_at": _seconds(view["ended_at"]),
        "expires_at": int(view["expires_at"]),
        "custom_id": view["custom_id"],
        "batch_id": view["batch_id"] or None,
        "tenant": view["tenant"],
        "endpoint": chain.endpoint,
        "chain": [str(step) for step in chain.steps],
        "priority": Priority(view["priority"]).queue,
        "metadata": orjson.loads(view["note"]) if view["note"] else {},
        "callback_url": view["callback_url"],
        "extra": orjson.loads(view["extra"]) if view["extra"] else None,
        "cancel_requested": view["cancel_requested"],
        "wait_reason": wait_reason(view) if open_job else None,
        "wait_until": math.ceil(view["not_before"]) if scheduled else None,
        "waiting": waiting_object(waiting or waiting_of(view, view["now"])),
        "provider": view["provider"],
        "model": view["model"],
        "cost_usd": None if view["unpriced"] else view["spent_usd"],
        "attempt_count": view["attempts"],
        "error": error_of(view)[1] if view["state"] in TERMINAL_STATES - {JobState.SUCCEEDED} else None,
        "links": {"self": f"{root}/v1/jobs/{view['id']}", "result": f"{root}/v1/jobs/{view['id']}/result"},
    }
    if "calls" in view:
        shown["attempts"] = [attempt_object(call) for call in view["calls"]]
    return shown


def with_result(shown: JobObject, answer: str | None) -> JobObject:
    """A job with its result; `answer` is the completion as JSON, or None."""
    result = None if answer is None else orjson.Fragment(answer)
    return {**shown, "result": result, "result_url": shown["links"]["result"]}


def error_of(view: View) -> tuple[int, ErrorObject]:
    """The status and OpenAI-style error of a job that ended without success; the provider's own message is kept."""
    state = JobState(view["state"])
    if state in WITHOUT_RESULT:
        code, message = WITHOUT_RESULT[state]
        if state is JobState.EXPIRED and (reason := wait_reason(view)):
            message += f": {reason}"
        return NO_RESULT_STATUS, error_object(NO_RESULT_STATUS, None, message, code)
    status = view["status_code"]
    if status is None or not 400 <= status <= 599:
        return 502, error_object(502, orjson.loads(view["error"]) if view["error"] else None)
    return status, error_object(status, _parsed(view["error_body"]))


def extra_fields_of(view: View) -> dict[str, Any] | None:
    """The attempts stored in the error body of a failed job, if any."""
    body = _parsed(view["error_body"] or view["error"])
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
