"""POST /v1/chat/completions: one job through the queue, and the connection held until it has ended.

A caller that goes away, or that was held for `api.hold_s`, gets nothing any more: its job is cancelled.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from models.job_objects import error_of, extra_fields_of, job_object, retry_after_s
from models.state import JobState, Priority
from models.store import StoreError
from models.wire import ErrorBody, RequestError
from producer.api.accepting import accept, job_of
from producer.api.auth import Caller, Submitter
from producer.api.bodies import documented, read_json
from producer.api.cancelling import cancel_job
from producer.api.chat_chunks import DONE, KEEP_ALIVE, chunks, event
from producer.api.context import Api, Context
from producer.api.errors import JSON, ApiError, refusals
from producer.api.job_objects import root_of
from producer.api.job_requests import JobRequest

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1", tags=["chat"])

KEEP_ALIVE_S = 5.0
EVENTS = "text/event-stream"
FINAL = {"X-Should-Retry": "false"}
"""What the OpenAI SDK reads before it tries again after an error status."""

_cancelling: set[asyncio.Task[None]] = set()


class ChatRequest(JobRequest):
    """A chat-completion body with our words beside."""

    stream: bool | None = None
    """True: server-sent events; comments while the job is under way, then the answer as chunks."""
    stream_options: dict[str, Any] | None = None
    """`include_usage`: a last chunk with the usage."""
    background: bool | None = None
    """True: answered with 202 and the job at once."""


@router.post(
    "/chat/completions",
    summary="A chat completion",
    response_class=Response,
    openapi_extra=documented(ChatRequest),
    responses={
        200: {"description": "The completion, or with `stream` its chunks", "content": {JSON: {}, EVENTS: {}}},
        202: {"description": "With `background`: the job"},
        **refusals(400, 401, 403, 409, 410, 413, 415, 422, 429, 502, 503, 504),
        "4XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
        "5XX": {"description": "Failed: the provider's status and error", "model": ErrorBody},
    },
)
async def complete(request: Request, api: Api, caller: Submitter) -> Response:
    """Held until the job has ended. When the caller goes away, the job is cancelled."""
    document, _ = await read_json(request, api.settings.api.max_body_bytes)
    stream, background = _flag(document, "stream"), _flag(document, "background")
    include_usage = _includes_usage(document)
    job = job_of(api, caller, document, priority=Priority.NORMAL if background else Priority.INTERACTIVE)
    await accept(api, caller, [job])
    if background:
        return await _accepted(request, api, caller, job.id)
    headers = {"X-Understudy-Job": job.id}
    if stream:
        events = _events(request, api, caller, job.id, include_usage)
        return StreamingResponse(events, headers={**headers, "Cache-Control": "no-cache"}, media_type=EVENTS)
    if not await _held(request, api, job.id, api.settings.api.hold_s):
        _cancel_soon(api, job.id)
        raise _late(job.id)
    status, body = await _outcome(api, caller, job.id)
    return Response(body, status, {**headers, **({} if status == 200 else FINAL)}, media_type=JSON)


async def _events(
    request: Request, api: Context, caller: Caller, job_id: str, include_usage: bool
) -> AsyncIterator[bytes]:
    loop, ended = asyncio.get_running_loop(), False
    until = loop.time() + api.settings.api.hold_s
    try:
        yield KEEP_ALIVE
        while not ended and (left_s := until - loop.time()) > 0:
            ended = await _held(request, api, job_id, min(KEEP_ALIVE_S, left_s))
            if not ended:
                yield KEEP_ALIVE
    except ApiError:  # nobody reads this stream any more
        return
    finally:
        if not ended:
            _cancel_soon(api, job_id)
    try:
        status, body = await _outcome(api, caller, job_id) if ended else (504, _late_body(job_id))
    except (ApiError, StoreError) as error:
        status, body = 503, orjson.dumps({"error": {"message": str(error), "type": "server_error"}})
    content = orjson.loads(body)
    if status != 200:
        yield event(content)
        return
    for chunk in chunks(content, include_usage):
        yield event(chunk)
    yield DONE


async def _held(request: Request, api: Context, job_id: str, for_s: float) -> bool:
    """Whether the job has ended by then. A caller that goes away has its job cancelled, and is waited for no more."""
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
            _cancel_soon(api, job_id)
    if left:
        raise ApiError(499, f"the caller of {job_id} went away", code="caller_gone")
    return ended


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _cancel_soon(api: Context, job_id: str) -> None:
    """Not awaited: who calls may be cancelled itself."""
    task = asyncio.create_task(_cancel(api, job_id))
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


async def _cancel(api: Context, job_id: str) -> None:
    try:
        await cancel_job(api, job_id)
    except StoreError as error:
        log.warning("job %s goes on although its caller went away: %s", job_id, error)


async def _outcome(api: Context, caller: Caller, job_id: str) -> tuple[int, bytes]:
    view = await api.store.seen_job(caller.tenant, job_id)
    if view is None:
        raise ApiError(410, f"the job {job_id} was pruned", code="job_pruned")
    if view["state"] == JobState.SUCCEEDED:
        body = await api.store.answer(job_id)
        if body is None:
            raise ApiError(410, f"the result of {job_id} was pruned", code="result_pruned")
        return 200, body.encode()
    status, error = error_of(view)
    fields = extra_fields_of(view)
    return status, orjson.dumps({"error": error, **({"extra_fields": fields} if fields else {})})


async def _accepted(request: Request, api: Context, caller: Caller, job_id: str) -> Response:
    view = await api.store.seen_job(caller.tenant, job_id)
    if view is None:
        raise ApiError(410, f"the job {job_id} was pruned", code="job_pruned")
    shown = job_object(view, await api.store.get_chain(view["chain_id"]), root_of(request, api.settings))
    headers = {"Location": shown["links"]["result"], "Retry-After": str(retry_after_s(view))}
    return Response(orjson.dumps(shown), 202, headers, media_type=JSON)


def _late(job_id: str) -> ApiError:
    message = f"the job {job_id} did not end while the connection was held, and is cancelled"
    return ApiError(504, message, code="held_too_long", headers=FINAL)


def _late_body(job_id: str) -> bytes:
    late = _late(job_id)
    return orjson.dumps({"error": {"message": late.message, "type": "server_error", "param": None, "code": late.code}})


def _flag(document: dict[str, Any], word: str) -> bool:
    value = document.pop(word, None)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"'{word}' must be true or false", word)
    return bool(value)


def _includes_usage(document: dict[str, Any]) -> bool:
    options = document.pop("stream_options", None)
    if options is not None and not isinstance(options, Mapping):
        raise RequestError("'stream_options' must be an object", "stream_options")
    return bool((options or {}).get("include_usage"))
