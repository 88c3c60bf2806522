"""Logs unexpected exceptions: where they were raised, never their message.

The message of an exception may quote a prompt or a secret, and so may the traceback that a server would print.
"""

import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from understudy.models.logs import raised_at

log = logging.getLogger(__name__)


class LoggedFailures:
    """Wraps the whole application: no exception of a request escapes it."""

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
