"""The result of a job as an HTTP response, the same for polling and waiting callers."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

import orjson
from fastapi import Response

from understudy.models.jobs.views import JobView
from understudy.models.objects.job import error_of, extra_fields_of
from understudy.models.state import JobState
from understudy.producer.api.context import Context
from understudy.producer.api.errors import JSON, ApiError
from understudy.producer.api.files.spooled_answers import PIECE_BYTES, Delivery, streamed

FINAL = {"X-Should-Retry": "false"}
"""Tells the OpenAI SDK not to retry after an error status: the job has ended."""


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
