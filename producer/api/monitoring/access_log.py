"""Logs a line per finished request, with a request id that the caller may set and that the response returns.

The path is that of the route, because URLs may contain secrets. Successful health checks are logged at `debug`.
"""

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.models.api_keys import parts_of
from understudy.models.ids import new_id
from understudy.models.logs import about
from understudy.producer.server.http_protocol import PROBES

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
HARMLESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
OUR_ID = re.compile(r"(job|batch)_[0-9a-z]{26}")
NO_ROUTE = "none"
NO_ANSWER = 499
"""nginx's status for a caller that disconnected before the response started."""


class LoggedRequests:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.ended = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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
