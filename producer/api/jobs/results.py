"""How a job ended, as an HTTP answer: the same to who polled for it and to who was held."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any

import orjson
from fastapi import Response

from understudy.models.objects.job import error_of, extra_fields_of
from understudy.models.state import JobState
from understudy.producer.api.context import Context
from understudy.producer.api.errors import JSON, ApiError
from understudy.producer.api.files.spooled_answers import PIECE_BYTES, Delivery, streamed

FINAL = {"X-Should-Retry": "false"}
"""What the OpenAI SDK reads before it tries again after an error status: this is the end of the job."""


async def outcome_of(api: Context, view: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """What came of a job that has ended, with these headers.

    Raises ApiError: 410 when its answer was pruned, 429 or 503 when there is no room for it."""
    if view["state"] == JobState.SUCCEEDED and _is_large(view):
        length = {"Content-Length": str(view["answer_bytes"])}
        return await streamed(pieces_of(api, view, lambda body: [body]), {**headers, **length}, JSON)
    status, body = await status_and_body(api, view)
    return Response(body, status, {**headers, **({} if status == 200 else FINAL)}, media_type=JSON)


async def status_and_body(api: Context, view: Mapping[str, Any]) -> tuple[int, bytes]:
    """The same, as it is sent; for what is not large. Raises ApiError."""
    if view["state"] == JobState.SUCCEEDED:
        return 200, await _answer(api, view)
    status, error = error_of(view)
    fields = extra_fields_of(view)
    return status, orjson.dumps({"error": error, **({"extra_fields": fields} if fields else {})})


def pieces_of(
    api: Context, view: Mapping[str, Any], shown: Callable[[bytes], Iterable[bytes]]
) -> AsyncGenerator[bytes, None]:
    """An answer as `shown` makes it, in pieces. To be asked for the first one raises ApiError."""

    async def page() -> Iterable[bytes]:
        return shown(await _answer(api, view))

    return Delivery(api, view["tenant"]).pieces(page, view["answer_bytes"] or 0)


def _is_large(view: Mapping[str, Any]) -> bool:
    return (view["answer_bytes"] or 0) > PIECE_BYTES


async def _answer(api: Context, view: Mapping[str, Any]) -> bytes:
    body = await api.store.jobs.answer(view["id"])
    if body is None:
        raise ApiError(410, f"the result of {view['id']} was pruned", code="result_pruned", headers=FINAL)
    return body.encode()
