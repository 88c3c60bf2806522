"""The guard of webhooks: host names are resolved here, and connections go only to addresses that were judged.

It sits below HTTP, where the connection is made: whatever a URL looks like, what is called is what was checked. DNS
rebinding gains nothing, because the name is not resolved again. Of several addresses only allowed ones are tried. TLS
still verifies the name.
"""

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from understudy.models.config.settings import WebhookSettings
from understudy.models.webhook_receivers import RefusedReceiver, is_allowed, refusal

ADDRESSES_TRIED = 3

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

UNRESOLVED = "the name cannot be resolved"


class Resolver:
    """DNS lookups by the system, in separate threads: a hanging DNS server blocks no provider call."""

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


class AddressFull(Exception):
    """A tenant has the maximum number of attempts in progress at an address."""


class Addresses:
    """Attempts in progress per tenant and address, whatever host names lead there; further attempts wait for a
    place."""

    def __init__(self, most: int, wait_s: float) -> None:
        self._most = most
        self._wait_s = wait_s
        self._places: dict[tuple[str, str], asyncio.Semaphore] = {}
        self._users: Counter[tuple[str, str]] = Counter()

    def is_full(self, tenant: str, address: str) -> bool:
        places = self._places.get((tenant, address))
        return places is not None and places.locked()

    async def take(self, tenant: str, address: str) -> Callable[[], None]:
        """Returns the function that releases the place. Raises AddressFull."""
        where = tenant, address
        places = self._places.setdefault(where, asyncio.Semaphore(self._most))
        self._users[where] += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await places.acquire()
        except BaseException as error:
            self._gone(where)
            raise AddressFull from None if isinstance(error, TimeoutError) else error

        def give_back() -> None:
            places.release()
            self._gone(where)

        return give_back

    def _gone(self, where: tuple[str, str]) -> None:
        self._users[where] -= 1
        if not self._users[where]:
            del self._users[where], self._places[where]


async def allowed_addresses(host: str, port: int, resolve: Resolve, settings: WebhookSettings) -> list[str]:
    """The allowed addresses of a host. Raises RefusedReceiver if there is none, and httpcore.ConnectError."""
    try:
        found = await resolve(host, port)
    except (OSError, UnicodeError):
        raise httpcore.ConnectError(UNRESOLVED) from None
    good = [each for each in found if is_allowed(ipaddress.ip_address(each), port, settings)]
    if not good:
        raise RefusedReceiver(refusal(httpx.URL(scheme="http", host=host), port, settings))
    return good


class GuardedNetwork(AsyncNetworkBackend):
    """The network of one attempt: connects to allowed addresses only, and holds a place at the one it calls.

    Raises RefusedReceiver, AddressFull, httpcore.ConnectError, ConnectTimeout. Waiting for a place does not count
    against the receiver: `deadline` is paused meanwhile.
    """

    def __init__(self, allowed: Resolve, addresses: Addresses, tenant: str, deadline: asyncio.Timeout) -> None:
        """`allowed` finds the allowed addresses of a host, `addresses` has the places at them."""
        self._allowed = allowed
        self._addresses = addresses
        self._tenant = tenant
        self._deadline = deadline
        self._network: AsyncNetworkBackend = httpcore.AnyIOBackend()
        self._give_back: Callable[[], None] | None = None

    def close(self) -> None:
        """The attempt has ended: release its place."""
        if self._give_back is not None:
            self._give_back()
            self._give_back = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception | None = None
        allowed = (await self._allowed(host, port))[:ADDRESSES_TRIED]
        for address in sorted(allowed, key=partial(self._addresses.is_full, self._tenant)):
            await self._take(address)
            try:
                return await self._network.connect_tcp(address, port, timeout=timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                self.close()
        raise failure or httpcore.ConnectError("no address")

    async def _take(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        left_s = (self._deadline.when() or loop.time()) - loop.time()
        self._deadline.reschedule(None)
        try:
            self._give_back = await self._addresses.take(self._tenant, address)
        finally:
            self._deadline.reschedule(loop.time() + left_s)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> AsyncNetworkStream:
        raise RefusedReceiver("is a local socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
