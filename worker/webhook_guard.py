"""The guard of webhooks: a name is looked up here, and the connection goes to an address that was judged, or nowhere.

It stands below HTTP, where the connection is made: whatever a URL looks like, what is called is what was checked. A
name that leads elsewhere on the next look-up (DNS rebinding) gains nothing, because there is no next look-up. Of
several addresses only those that are allowed are tried. TLS still verifies the name.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from models.receivers import RefusedReceiver, is_allowed, refusal
from models.settings import WebhookSettings

ADDRESSES_TRIED = 3

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class Resolver:
    """The system's name look-ups, in threads of their own: a name server that hangs holds up no provider call."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str | int, ...] | tuple[int, bytes]]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class GuardedNetwork(AsyncNetworkBackend):
    """Connects to allowed addresses only. Raises RefusedReceiver, httpcore.ConnectError, ConnectTimeout."""

    def __init__(self, settings: WebhookSettings, resolve: Resolve) -> None:
        self._settings = settings
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception | None = None
        for address in (await self.allowed(host, port))[:ADDRESSES_TRIED]:
            try:
                return await self._network.connect_tcp(address, port, timeout=timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def allowed(self, host: str, port: int) -> list[str]:
        """Those addresses of a host that may be called. Raises RefusedReceiver when there is none."""
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("the name cannot be looked up") from None
        good = [each for each in found if is_allowed(ipaddress.ip_address(each), port, self._settings)]
        if not good:
            raise RefusedReceiver(refusal(httpx.URL(scheme="http", host=host), port, self._settings))
        return good

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> AsyncNetworkStream:
        raise RefusedReceiver("is a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
