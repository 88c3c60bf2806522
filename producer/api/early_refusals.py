"""Requests rejected before their body arrived: drain it so the client can read the error, then close.

Closing at once would lose the response, because most clients read it only after sending everything; reading on without
limit would keep the server busy forever. So the rest of the body is read and discarded, up to a size and a time, and
the connection is closed after the response. A stalled body is not waited for.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 256 * 1024 * 1024
LONGEST_S = 10.0
HARMLESS_BYTES = 1024 * 1024
"""A body up to this length may arrive after the response, and the connection stays open."""

CLOSE = (b"connection", b"close")


class DrainedRequests:
    """Limits how much of a body is read after its response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _may_be_long(scope):
            await self._app(scope, receive, send)
            return
        arriving = refused = True

        async def watched_receive() -> Message:
            nonlocal arriving
            message = await receive()
            arriving = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drained_send(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = arriving
                if refused:
                    message = {**message, "headers": [*message.get("headers", []), CLOSE]}
            elif refused and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drain(receive)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, watched_receive, drained_send)


def _may_be_long(scope: Scope) -> bool:
    """Whether the body may be long, or its length is unknown."""
    headers = {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or len(length) > 18 or (length.isdigit() and int(length) > HARMLESS_BYTES)


async def _drain(receive: Receive) -> None:
    left = MOST_BYTES
    try:
        async with asyncio.timeout(LONGEST_S):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
