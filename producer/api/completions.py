"""Chat completions and embeddings: one job through the queue, with the connection kept open until it ends.

When the caller disconnects, or after `api.hold_s`, the job is cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from starlette.responses import StreamingResponse

from understudy.models.errors import UnderstudyError
from understudy.models.objects.completion import ChatCompletion, Embeddings
from understudy.models.objects.job import JobObject
from understudy.models.request.wire import RequestError
from understudy.models.routing.chain import EMBEDDINGS
from understudy.models.state import JobState, Priority
from understudy.producer.api.access.auth import Caller, Submitter
from understudy.producer.api.bodies import documented, read_json
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError
from understudy.producer.api.jobs.responses import job_response, pieces_of, status_and_body
from understudy.producer.api.jobs.submission import JobRequest, accept, job_of
from understudy.producer.api.synchronous import (
    REJECTIONS,
    accept_held,
    answer_when_ended,
    cancel_soon,
    held,
    job_header,
    late_body,
    view_of,
)
from understudy.producer.request_fields import JobFields

router = APIRouter(prefix="/v1")

KEEP_ALIVE_S = 5.0
EVENTS = "text/event-stream"

PIECE_CHARS = 200
KEEP_ALIVE = b": the job is under way\n\n"
DONE = b"data: [DONE]\n\n"

_OF_ALL = ("id", "created", "model", "system_fingerprint", "service_tier")

EXAMPLE: JsonDict = {"input": ["a walnut desk", "a brass lamp"]}


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
    tags=["chat"],
    summary="A chat completion",
    response_class=Response,
    openapi_extra=documented(ChatRequest),
    responses={
        200: {
            "description": "The completion, or with `stream` its chunks",
            "model": ChatCompletion,
            "content": {EVENTS: {}},
        },
        202: {"description": "With `background`: the job", "model": JobObject},
        **REJECTIONS,
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
        return await job_response(request, api, await view_of(api, caller, job.id), {}, 202)
    await accept_held(api, caller, job)
    if stream:
        events = _events(request, api, caller, job.id, include_usage)
        return StreamingResponse(events, headers={**job_header(job.id), "Cache-Control": "no-cache"}, media_type=EVENTS)
    return await answer_when_ended(request, api, caller, job.id)


class EmbeddingsRequest(JobFields):
    """An embeddings body with additional fields. Fields not listed here are passed to the provider unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    input: str | list[Any] = Field(min_length=1)
    """A text, up to 2,048 texts, or tokens."""
    dimensions: int | None = Field(default=None, gt=0)
    """Length of the vectors, for models that support it."""
    encoding_format: str | None = Field(default=None, pattern="^(float|base64)$")
    """`float` (default) or `base64`."""


@router.post(
    "/embeddings",
    tags=["embeddings"],
    summary="Embeddings",
    response_class=Response,
    openapi_extra=documented(EmbeddingsRequest),
    responses={200: {"description": "The vectors", "model": Embeddings}, **REJECTIONS},
)
async def embed(request: Request, api: Api, caller: Submitter) -> Response:
    """Responds when the job has ended. If the caller disconnects, the job is cancelled."""
    document = await read_json(request, api.settings.api.max_body_bytes)
    job = await job_of(api, caller, document, priority=Priority.INTERACTIVE, endpoint=EMBEDDINGS)
    await accept_held(api, caller, job)
    return await answer_when_ended(request, api, caller, job.id)


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
            yield _event(orjson.loads(late_body(job_id)))
            return
        view = await view_of(api, caller, job_id)
        if view.state is not JobState.SUCCEEDED:
            _, body = await status_and_body(api, view)
            yield _event(orjson.loads(body))
            return
        async for piece in pieces_of(api, view, partial(_chunks, include_usage)):
            yield piece
    except UnderstudyError as error:
        yield _event({"error": {"message": str(error), "type": "server_error"}})


def _chunks(include_usage: bool, body: bytes) -> Iterator[bytes]:
    for chunk in _chunked(orjson.loads(body), include_usage):
        yield _event(chunk)
    yield DONE


def _event(data: Mapping[str, Any]) -> bytes:
    """One event of the stream."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _chunked(completion: Mapping[str, Any], include_usage: bool) -> Iterator[dict[str, Any]]:
    """A complete answer in the chunks of a stream, which OpenAI's clients reassemble."""
    base = {name: completion[name] for name in _OF_ALL if name in completion} | {"object": "chat.completion.chunk"}
    if include_usage:
        base["usage"] = None
    for choice in completion.get("choices") or []:
        index = choice.get("index", 0)
        for delta in _deltas(choice.get("message") or {}):
            yield {**base, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]}
        ending = {"logprobs": choice.get("logprobs"), "finish_reason": choice.get("finish_reason")}
        yield {**base, "choices": [{"index": index, "delta": {}, **ending}]}
    if include_usage:
        yield {**base, "choices": [], "usage": completion.get("usage")}


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    text, refusal, calls = message.get("content"), message.get("refusal"), message.get("tool_calls")
    rest = {name: value for name, value in message.items() if name not in ("content", "refusal", "tool_calls")}
    yield {"role": "assistant", **rest, "content": "" if text is not None else None}
    yield from ({"content": piece} for piece in _pieces(text))
    yield from ({"refusal": piece} for piece in _pieces(refusal))
    if calls:
        yield {"tool_calls": [{**call, "index": number} for number, call in enumerate(calls)]}


def _pieces(text: str | None) -> Iterator[str]:
    for start in range(0, len(text or ""), PIECE_CHARS):
        yield (text or "")[start : start + PIECE_CHARS]
