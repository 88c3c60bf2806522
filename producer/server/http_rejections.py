"""Error responses of the server itself, without the application; each closes its connection."""

from http import HTTPStatus

import orjson
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from understudy.models.errors import ERROR_TYPES

HEAD_BYTES = 64 * 1024
HEADERS = 100
HEAD_S = 10.0
MOST_PIPELINED = 16
RETRY_S = 5

NO_HTTP = (400, "invalid HTTP/1.1 request", "invalid_http")
TOO_LONG = (
    431,
    f"the headers or trailers of the request exceed {HEAD_BYTES:,} bytes or {HEADERS} fields",
    "head_too_long",
)
TOO_SLOW = (408, f"the request headers did not arrive within {HEAD_S:g} s; send the request again", "head_too_slow")
TOO_MANY = (503, "too many connections are open; try again later", "too_many_connections")
TOO_EAGER = (429, f"more than {MOST_PIPELINED} requests were sent without waiting for a response", "pipeline_too_long")

Rejection = tuple[int, str, str]
"""Status, message, code."""


def answer(rejection: Rejection) -> bytes:
    """A complete response with OpenAI's error object."""
    status, body = rejection[0], _error(*rejection)
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *([f"retry-after: {RETRY_S}"] if status in (429, 503) else []),
        *("x-content-type-options: nosniff", "connection: close", "", ""),
    ]
    return "\r\n".join(head).encode() + body


def _error(status: int, message: str, code: str) -> bytes:
    kind = ERROR_TYPES.get(status, "invalid_request_error")
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


async def no_room(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The application for connections beyond the limit."""
    body = _error(*TOO_MANY)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_S).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": TOO_MANY[0], "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
