"""A job and its result as HTTP responses, the same for polling and waiting callers."""

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Header, Query, Request, Response

from understudy.models.jobs.views import JobView
from understudy.models.objects.job import (
    LONGEST_RETRY_S,
    JobObject,
    error_of,
    extra_fields_of,
    job_object,
    retry_after_s,
)
from understudy.models.objects.waiting import WaitingObject
from understudy.models.state import JobState
from understudy.producer.api.access.auth import Caller
from understudy.producer.api.access.locality import root_of
from understudy.producer.api.context import Context
from understudy.producer.api.errors import JSON, ApiError, json_response
from understudy.producer.api.files.spooled_answers import PIECE_BYTES, Delivery, streamed
from understudy.producer.single_jobs import cancel_job as cancel_in_ledger
from understudy.producer.status.waiting import waiting_of_job

FINAL = {"X-Should-Retry": "false"}
"""Tells the OpenAI SDK not to retry after an error status: the job has ended."""

ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
LONGEST_WAIT_S = 60
SOON_S = 5.0
"""Seconds a job may be queued before its wait reason is determined."""

PREFERRED_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?=[,;]|$)", re.IGNORECASE)

Wait = Annotated[
    int, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the job to end before responding.")
]
Prefer = Annotated[str | None, Header(description="`wait=N`: same as the parameter.")]

HEADERS = {
    "Location": {"description": "URL of the result", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until the next poll", "schema": {"type": "integer"}},
}
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "Not finished yet: the job", "headers": HEADERS, "model": JobObject}
}


async def own_job(api: Context, caller: Caller, job_id: str, gone: int = 404) -> JobView:
    """Raises ApiError when the caller's tenant has no such job."""
    view = await api.store.jobs.view(job_id, caller.tenant) if ID.fullmatch(job_id) else None
    if view is None:
        code = "not_found" if gone == 404 else "job_pruned"
        known = job_id if ID.fullmatch(job_id) else "of this id"
        raise ApiError(gone, f"there is no job {known}" + (" any more" if gone == 410 else ""), code=code)
    return view


async def held_job(
    api: Context, caller: Caller, job_id: str, wait_s: int | None, gone: int = 404
) -> tuple[JobView, dict[str, str]]:
    """The job, after waiting for it to end for up to `wait_s`, and the response headers that say so."""
    view = await own_job(api, caller, job_id, gone)
    if wait_s is None:
        return view, {}
    if wait_s and not view.has_ended:
        await api.waiters.ended(job_id, wait_s)
        view = await own_job(api, caller, job_id, gone)
    return view, {"Preference-Applied": f"wait={wait_s}"}


def preferred_wait_s(wait: int, prefer: str | None) -> int | None:
    """How long the caller is willing to wait, by parameter or header; None when neither is given."""
    if wait:
        return wait
    preferred = PREFERRED_WAIT.search(prefer or "")
    return min(int(preferred[1]), LONGEST_WAIT_S) if preferred else None


def _retry_after_s(view: JobView, waiting: WaitingObject | None) -> int:
    """Seconds until the next poll: long when the job waits for a person."""
    return LONGEST_RETRY_S if waiting is not None and waiting["who_can_help"] else retry_after_s(view)


async def job_response(
    request: Request, api: Context, view: JobView, applied: Mapping[str, str], status: int
) -> Response:
    chain, waiting = await api.store.get_chain(view.chain_id), None
    if view.state is JobState.QUEUED and view.now - view.created_at > SOON_S:
        waiting = await waiting_of_job(api.settings, api.store, api.redis, view)
    shown = job_object(view, chain, root_of(request, api.settings), waiting)
    headers = dict(applied)
    if status == 202:
        headers["Location"] = shown["links"]["result"]
    if status == 202 or not view.has_ended:
        headers["Retry-After"] = str(_retry_after_s(view, shown["waiting"]))
    return json_response(shown, status, headers)


async def cancel_job(api: Context, job_id: str) -> None:
    """Cancel a job that has not ended; a running job is stopped by its worker shortly. Raises StoreError."""
    if await cancel_in_ledger(api.store, api.redis, job_id) is JobState.CANCELLED:
        api.waiters.tell([job_id])


async def outcome_of(api: Context, view: JobView, headers: Mapping[str, str]) -> Response:
    """The result of a finished job, with these headers.

    Raises ApiError: 410 when its answer was pruned, 429 or 503 when there is no room for it."""
    if view.state is JobState.SUCCEEDED and _is_large(view):
        length = {"Content-Length": str(view.answer_bytes)}
        return await streamed(pieces_of(api, view, lambda body: [body]), {**headers, **length}, JSON)
    status, body = await status_and_body(api, view)
    return Response(body, status, {**headers, **({} if status == 200 else FINAL)}, media_type=JSON)


async def status_and_body(api: Context, view: JobView) -> tuple[int, bytes]:
    """Status and body of a result that is not large. Raises ApiError."""
    if view.state is JobState.SUCCEEDED:
        return 200, await _answer(api, view)
    status, error = error_of(view)
    fields = extra_fields_of(view)
    return status, orjson.dumps({"error": error, **({"extra_fields": fields} if fields else {})})


def pieces_of(api: Context, view: JobView, shown: Callable[[bytes], Iterable[bytes]]) -> AsyncGenerator[bytes, None]:
    """An answer as rendered by `shown`, in pieces. Asking for the first piece may raise ApiError."""

    async def page() -> Iterable[bytes]:
        return shown(await _answer(api, view))

    return Delivery(api, view.tenant).pieces(page, view.answer_bytes)


def _is_large(view: JobView) -> bool:
    return view.answer_bytes > PIECE_BYTES


async def _answer(api: Context, view: JobView) -> bytes:
    body = await api.store.jobs.answer(view.id)
    if body is None:
        raise ApiError(410, f"the result of {view.id} was pruned", code="result_pruned", headers=FINAL)
    return body.encode()
