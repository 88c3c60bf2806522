"""Defects: what the log says of an exception that nobody expected. Where it came from, never what it says.

The text of an exception may quote a prompt or a secret, and so may the traceback that a server would print.
"""

import logging
import traceback

from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

FRAMES = 5


class LoggedFailures:
    """Goes around the whole application: no exception of a request gets out of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            route = getattr(scope.get("route"), "path", "a path that is none")
            log.error("%s %s failed: %s", scope["method"], route, place_of(error))


def place_of(error: BaseException) -> str:
    """The kind of an exception and the latest calls that led to it, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    calls = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames)]
    return " < ".join([type(error).__name__, *calls])
