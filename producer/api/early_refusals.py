"""Requests that are refused before their body has arrived: the caller gets to read why, and then is hung up on.

A server that hung up at once would lose the answer, because most clients read it only when they have sent everything;
one that goes on reading can be kept busy for ever. So the rest of a body is read and thrown away, up to some size and
for some time, and the connection ends with the answer. A body that stops arriving is not waited for either.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 256 * 1024 * 1024
LONGEST_S = 10.0
HARMLESS_BYTES = 1024 * 1024
"""The rest of so short a body may arrive after its answer, and the connection is kept."""

CLOSE = (b"connection", b"close")


class DrainedRequests:
    """Bounds what is read of a body after its answer."""

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
    """Whether a body comes whose end is unknown or far."""
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
