"""Security headers of every response: no type sniffing, no caching, no framing, no scripts.

Responses are data, some of it from third parties, so a browser that opens one must not guess its type. The pages of
/docs may run their own scripts.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class SecurityHeaders:
    """Adds the headers to every response; headers set by a route take precedence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = PAGES if scope["path"].startswith(PAGES_BEGIN) else DATA

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": [*given, *(each for each in added if each[0] not in names)]}
            await send(message)

        await self._app(scope, receive, with_headers)
