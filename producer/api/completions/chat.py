"""POST /v1/chat/completions: one job through the queue, with the connection kept open until it ends.

When the caller disconnects, or after `api.hold_s`, the job is cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from understudy.models.errors import UnderstudyError
from understudy.models.objects.job import JobObject
from understudy.models.request.wire import RequestError
from understudy.models.state import JobState, Priority
from understudy.producer.api.access.auth import Caller, Submitter
from understudy.producer.api.bodies import documented, read_json
from understudy.producer.api.completions.chunks import DONE, KEEP_ALIVE, chunks, event
from understudy.producer.api.completions.synchronous import (
    REFUSALS,
    accept_held,
    accepted,
    answer_when_ended,
    cancel_soon,
    held,
    job_header,
    late_body,
    view_of,
)
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import JSON, ApiError
from understudy.producer.api.jobs.requests import JobRequest
from understudy.producer.api.jobs.results import pieces_of, status_and_body
from understudy.producer.api.jobs.submission import accept, job_of

router = APIRouter(prefix="/v1", tags=["chat"])

KEEP_ALIVE_S = 5.0
EVENTS = "text/event-stream"


class ChatRequest(JobRequest):
    """A chat-completion body with additional fields."""

    stream: bool | None = None
    """True: server-sent events: comments while the job is in progress, then the answer in chunks."""
    stream_options: dict[str, Any] | None = None
    """`include_usage`: send a last chunk with the usage."""
    background: bool | None = None
    """True: respond at once with 202 and the job."""


@router.post(
    "/chat/completions",
    summary="A chat completion",
    response_class=Response,
    openapi_extra=documented(ChatRequest),
    responses={
        200: {"description": "The completion, or with `stream` its chunks", "content": {JSON: {}, EVENTS: {}}},
        202: {"description": "With `background`: the job", "model": JobObject},
        **REFUSALS,
    },
)
async def complete(request: Request, api: Api, caller: Submitter) -> Response:
    """Responds when the job has ended. If the caller disconnects, the job is cancelled."""
    document = await read_json(request, api.settings.api.max_body_bytes)
    stream, background = _flag(document, "stream"), _flag(document, "background")
    include_usage = _includes_usage(document)
    job = await job_of(api, caller, document, priority=Priority.NORMAL if background else Priority.INTERACTIVE)
    if background:
        await accept(api, caller, [job])
        return await accepted(request, api, caller, job.id)
    await accept_held(api, caller, job)
    if stream:
        events = _events(request, api, caller, job.id, include_usage)
        return StreamingResponse(events, headers={**job_header(job.id), "Cache-Control": "no-cache"}, media_type=EVENTS)
    return await answer_when_ended(request, api, caller, job.id)


async def _events(
    request: Request, api: Context, caller: Caller, job_id: str, include_usage: bool
) -> AsyncIterator[bytes]:
    loop, ended = asyncio.get_running_loop(), False
    until = loop.time() + api.settings.api.hold_s
    try:
        yield KEEP_ALIVE
        while not ended and (left_s := until - loop.time()) > 0:
            ended = await held(request, api, job_id, min(KEEP_ALIVE_S, left_s))
            if not ended:
                yield KEEP_ALIVE
    except ApiError:  # the client has disconnected
        return
    finally:
        if not ended:
            cancel_soon(api, job_id)
    try:
        if not ended:
            yield event(orjson.loads(late_body(job_id)))
            return
        view = await view_of(api, caller, job_id)
        if view.state is not JobState.SUCCEEDED:
            _, body = await status_and_body(api, view)
            yield event(orjson.loads(body))
            return
        async for piece in pieces_of(api, view, partial(_chunks, include_usage)):
            yield piece
    except UnderstudyError as error:
        yield event({"error": {"message": str(error), "type": "server_error"}})


def _chunks(include_usage: bool, body: bytes) -> Iterator[bytes]:
    for chunk in chunks(orjson.loads(body), include_usage):
        yield event(chunk)
    yield DONE


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
