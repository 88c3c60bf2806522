"""Serves the HTTP API until it is stopped."""

import asyncio
import socket

import uvicorn

from understudy.models.config.settings import Settings
from understudy.models.errors import WrongUse
from understudy.models.store import Store
from understudy.producer.api.app import create_app, open_context
from understudy.producer.api.middleware import LoggedFailures, LoggedRequests
from understudy.producer.server.connection_limit import ConnectionLimit, connections_allowed
from understudy.producer.server.http_protocol import bounded

GRACE_S = 10
"""Seconds that requests in progress may take when the server stops."""

BACKLOG = 2048
"""Connections that may wait to be accepted."""

TAKEN_AT_ONCE = 8
"""Connections accepted before the accepted ones are handled: each costs a descriptor."""


class HttpServer:
    """The HTTP API at the configured address. Listens from the start, so that a port in use is noticed at once."""

    def __init__(self, settings: Settings, store: Store, redis_url: str) -> None:
        """Raises WrongUse if it cannot listen there."""
        self._listener = _listen(settings.api.host, settings.api.port)
        self._requests = LoggedRequests(LoggedFailures(create_app(open_context(settings, store, redis_url))))
        config = uvicorn.Config(
            self._requests,
            http=bounded(ConnectionLimit(connections_allowed())),
            ws="none",
            backlog=TAKEN_AT_ONCE,
            log_config=None,  # use our own logging
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
        )
        self._server = _Server(config)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def serve(self) -> None:
        """Serve until stopped and all requests have ended."""
        await self._server.serve(sockets=[self._listener])
        if not self._server.started:
            raise RuntimeError("the HTTP server did not start; see its log")

    @property
    def answered(self) -> int:
        """The number of finished requests."""
        return self._requests.ended

    @property
    def stopping(self) -> bool:
        return self._server.should_exit

    def stop(self) -> None:
        """Accept no more requests and let those in progress finish; a second call does not wait for them."""
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves signals to the command, which also has workers to stop."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)  # asyncio has set its own backlog


def _listen(host: str, port: int) -> socket.socket:
    try:
        # With an explicit protocol, asyncio disables Nagle's algorithm, which would delay small responses by 40 ms.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise WrongUse(f"cannot listen on {host}: {_reason(error)}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise WrongUse(f"cannot listen on {host}:{port}: {_reason(error)}; try --port") from None
    listener.setblocking(False)
    return listener


def _reason(error: OSError) -> str:
    return (error.strerror or "permission denied").lower()


async def all_of(*tasks: "asyncio.Task[None]") -> None:
    """Wait for all tasks. Raises the first exception at once."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in ended:
        task.result()
