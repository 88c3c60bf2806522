"""What wraps the application: each class does one thing for every request.

LoggedRequests    a line in the log, and a request id
LoggedFailures    unexpected exceptions in the log
TimedRequests     the time until the response started, as a metric
DrainedRequests   time to read an error that came before the body had arrived
SecurityHeaders   headers for browsers
"""

import asyncio
import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.models.api_keys import parts_of
from understudy.models.ids import new_id
from understudy.models.logs import about, raised_at
from understudy.producer.server.http_protocol import PROBES

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
OUR_ID = re.compile(r"(job|batch)_[0-9a-z]{26}")
NO_ROUTE = "none"
NO_ANSWER = 499
"""nginx's status for a caller that disconnected before the response started."""

MOST_BYTES = 256 * 1024 * 1024
LONGEST_S = 10.0
HARMLESS_BYTES = 1024 * 1024
"""A body up to this length may arrive after the response, and the connection stays open."""

CLOSE = (b"connection", b"close")

COMMON = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
DATA = [
    *COMMON,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
PAGES = [
    *COMMON,
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; base-uri 'none'; object-src 'none'; frame-ancestors 'none'",
    ),
]
PAGES_BEGIN = ("/docs", "/static-offline-docs")


class _Wrapper:
    """Serves each request in its own way; everything else goes through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.serve if scope["type"] == "http" else self._app)(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class LoggedRequests(_Wrapper):
    """Logs a line per finished request, with a request id that the caller may set and that the response returns.

    The path is that of the route, because URLs may contain secrets. Successful health checks are logged at `debug`.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.ended = 0

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _chosen(scope) or new_id("req")
        began, status = time.monotonic(), NO_ANSWER

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id.encode())]}
            await send(message)

        with about(request_id=request_id):
            try:
                await self._app(scope, receive, noting_send)
            finally:
                self.ended += 1
                _write(scope, status, time.monotonic() - began)


def _chosen(scope: Scope) -> str | None:
    """The caller's request id, if it is short, harmless and not an API key."""
    given: list[str] = [value.decode("latin-1") for name, value in scope["headers"] if name == HEADER]
    if len(given) == 1 and HARMLESS.fullmatch(given[0]) and parts_of(given[0]) is None:
        return given[0]
    return None


def _write(scope: Scope, status: int, took_s: float) -> None:
    level = logging.DEBUG if status == 200 and scope["path"].encode() in PROBES else logging.INFO
    if not log.isEnabledFor(level):
        return
    fields = {
        "method": scope["method"],
        "path": getattr(scope.get("route"), "path", NO_ROUTE),
        "status": status,
        "duration_ms": round(took_s * 1000, 1),
    }
    with about(**_ids(scope)):
        log.log(level, "%s %s %d %.1f ms", *fields.values(), extra={"fields": fields})


def _ids(scope: Scope) -> dict[str, str]:
    """The tenant, once the caller is known (`producer.api.access.auth`), and the job or batch in the path."""
    tenant = scope.get("state", {}).get("tenant")
    found = [OUR_ID.fullmatch(str(value)) for value in scope.get("path_params", {}).values()]
    return ({"tenant": tenant} if tenant else {}) | {f"{match[1]}_id": match[0] for match in found if match}


class LoggedFailures:
    """Logs unexpected exceptions: where they were raised, never their message. No exception of a request escapes it.

    The message of an exception may quote a prompt or a secret, and so may the traceback that a server would print.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                log.critical("The HTTP API cannot be started or stopped: %s", raised_at(error))
                raise
            route = getattr(scope.get("route"), "path", "unknown path")
            log.error("%s %s failed: %s", scope["method"], route, raised_at(error))


class TimedRequests(_Wrapper):
    """Measures the time until each route starts its response. Waiting requests take long by design."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()

        async def timed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                labels = (scope["method"], getattr(route, "path", NO_ROUTE), str(message["status"]))
                scope["app"].state.context.metrics.requests.labels(*labels).observe(time.monotonic() - began)
            await send(message)

        await self._app(scope, receive, timed_send)


class DrainedRequests(_Wrapper):
    """Reads on when a request is rejected before its body arrived, so that the client can read the error, then closes.

    Closing at once would lose the response, because most clients read it only after sending everything; reading on
    without limit would keep the server busy forever. So the rest of the body is read and discarded, up to a size and a
    time, and the connection is closed after the response. A stalled body is not waited for.
    """

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _may_be_long(scope):
            await self._app(scope, receive, send)
            return
        arriving = rejected = True

        async def watched_receive() -> Message:
            nonlocal arriving
            message = await receive()
            arriving = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drained_send(message: Message) -> None:
            nonlocal rejected
            if message["type"] == "http.response.start":
                rejected = arriving
                if rejected:
                    message = {**message, "headers": [*message.get("headers", []), CLOSE]}
            elif rejected and not message.get("more_body", False):
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


class SecurityHeaders(_Wrapper):
    """Adds security headers to every response: no type sniffing, no caching, no framing, no scripts. Headers set by a
    route take precedence.

    Responses are data, some of it from third parties, so a browser that opens one must not guess its type. The pages of
    /docs may run their own scripts.
    """

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        added = PAGES if scope["path"].startswith(PAGES_BEGIN) else DATA

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": [*given, *(each for each in added if each[0] not in names)]}
            await send(message)

        await self._app(scope, receive, with_headers)
