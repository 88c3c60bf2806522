"""Keeps a connection open until its job has ended, for all routes that respond with a completion.

When the caller disconnects, or after `api.hold_s`, the job is cancelled.
"""

import asyncio
import logging

import orjson
from fastapi import Request, Response

from understudy.models.cancellation import end_if_cancelled
from understudy.models.jobs.submission import NewJob
from understudy.models.jobs.views import JobView
from understudy.models.request.wire import ErrorBody
from understudy.models.store import StoreError
from understudy.producer.api.access.auth import Caller
from understudy.producer.api.context import Context
from understudy.producer.api.errors import ApiError, rejections
from understudy.producer.api.jobs.responses import FINAL, cancel_job, outcome_of
from understudy.producer.api.jobs.submission import accept

log = logging.getLogger(__name__)

REJECTIONS = {
    **rejections(400, 401, 403, 404, 408, 409, 410, 413, 415, 422, 429, 502, 503, 504),
    "4XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
    "5XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
}

_cancelling: set[asyncio.Task[None]] = set()


def job_header(job_id: str) -> dict[str, str]:
    return {"X-Understudy-Job": job_id}


async def accept_held(api: Context, caller: Caller, job: NewJob) -> None:
    """Accept a job whose caller waits. If the request is cancelled meanwhile, so is the job."""
    try:
        await accept(api, caller, [job])
        end_if_cancelled()
    except asyncio.CancelledError:
        cancel_soon(api, job.id)
        raise


async def answer_when_ended(request: Request, api: Context, caller: Caller, job_id: str) -> Response:
    """The completion, or the error with its status. Raises ApiError on timeout."""
    if not await held(request, api, job_id, api.settings.api.hold_s):
        cancel_soon(api, job_id)
        raise late(job_id)
    try:
        return await outcome_of(api, await view_of(api, caller, job_id), job_header(job_id))
    except ApiError as error:  # the job has ended and was paid for: it is not to be asked a second time
        error.headers = {**error.headers, **job_header(job_id), **FINAL}
        raise


async def held(request: Request, api: Context, job_id: str, for_s: float) -> bool:
    """Whether the job ended in time. Cancels the job and raises ApiError when the caller disconnects."""
    waiting = asyncio.create_task(api.waiters.ended(job_id, for_s))
    leaving = asyncio.create_task(_gone(request))
    ended = left = False
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        ended = waiting.done() and waiting.result()
        left = leaving.done() and not ended
    except asyncio.CancelledError:
        left = True
        raise
    finally:
        waiting.cancel()
        leaving.cancel()
        if left:
            cancel_soon(api, job_id)
    if left:
        raise ApiError(499, f"the caller of {job_id} disconnected", code="caller_gone")
    return ended


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def cancel_soon(api: Context, job_id: str) -> None:
    """Cancel a job in the background, because the calling task may itself be cancelled."""
    task = asyncio.create_task(_cancel(api, job_id))
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


async def _cancel(api: Context, job_id: str) -> None:
    try:
        await cancel_job(api, job_id)
    except StoreError as error:
        log.warning("job %s continues although its caller disconnected: %s", job_id, error)


async def view_of(api: Context, caller: Caller, job_id: str) -> JobView:
    """A job that existed. Raises ApiError when it was pruned."""
    view = await api.store.jobs.view(job_id, caller.tenant)
    if view is None:
        raise ApiError(410, f"the job {job_id} was pruned", code="job_pruned")
    return view


def late(job_id: str) -> ApiError:
    message = f"the job {job_id} did not finish in time and is cancelled"
    return ApiError(504, message, code="held_too_long", headers=FINAL)


def late_body(job_id: str) -> bytes:
    error = late(job_id)
    return orjson.dumps({"error": {"message": str(error), "type": "server_error", "param": None, "code": error.code}})
