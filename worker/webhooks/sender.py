"""One POST to a receiver: a fresh connection through the guard, one deadline for everything, a truncated response.

Not the providers' client: that one keeps connections and uses proxies. Here the address that was judged must be the one
that is called, so there is no proxy (it would resolve the name itself), no redirect, and no connection is kept.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

import httpcore
import httpx

from understudy.models.cancellation import end
from understudy.models.config.settings import WebhookSettings
from understudy.models.webhook_receivers import RefusedReceiver, receiver_url
from understudy.worker.webhooks.guard import (
    UNRESOLVED,
    Addresses,
    AddressFull,
    GuardedNetwork,
    Resolve,
    Resolver,
    allowed_addresses,
)

DEADLINE_S = 15.0
CONNECT_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
NAMES_AT_AN_ADDRESS = 2
"""In one worker, a tenant's attempts at one address are limited to this multiple of `max_in_flight`, whatever the
host names: a slow receiver leaves as much to others at its address, and no address is flooded."""

COMMON_HEADERS = {"content-type": "application/json", "user-agent": "understudy", "accept": "*/*"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a receiver; without one, `error` instead of a status. `given_up`: never to be retried."""

    status: int | None = None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    given_up: bool = False
    untried: bool = False
    """No connection was made: its tenant has the maximum in progress at the address."""


class Sender:
    """Posts to receivers. `threads` bounds concurrent DNS lookups."""

    def __init__(
        self,
        settings: WebhookSettings,
        threads: int,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._resolve = resolve or Resolver(threads)
        self._settings = settings
        self._addresses = Addresses(NAMES_AT_AN_ADDRESS * settings.max_in_flight, deadline_s)
        self._late: dict[asyncio.Task[list[str]], str] = {}
        self._tls = tls or httpx.create_ssl_context()
        self._deadline_s = deadline_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(set(self._late))
        if isinstance(self._resolve, Resolver):
            self._resolve.close()

    @property
    def late(self) -> Counter[str]:
        """By tenant: DNS lookups that continue although their attempts have ended. They occupy threads."""
        return Counter(self._late.values())

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, tenant: str = "") -> Answer:
        """Never raises because of what a receiver does."""
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                network = GuardedNetwork(partial(self._look_up, tenant), self._addresses, tenant, deadline)
                try:
                    return await self._post(network, receiver_url(url), headers, body)
                finally:
                    network.close()
        except AddressFull:
            return Answer(error="its address has the maximum number of webhooks in progress", untried=True)
        except RefusedReceiver as error:
            return Answer(error=f"the URL {error}")
        except TimeoutError:
            return Answer(error=f"did not finish its response within {self._deadline_s:g} s")
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            return Answer(error=_connection_error(error))
        except (httpcore.NetworkError, httpcore.TimeoutException):
            return Answer(error="closed the connection before responding")
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            return Answer(error="sent a response that is not HTTP")

    async def _look_up(self, tenant: str, host: str, port: int) -> Sequence[str]:
        """A thread that waits for a DNS server cannot be aborted: it counts until it has its answer."""
        look = asyncio.create_task(allowed_addresses(host, port, self._resolve, self._settings))
        try:
            return await asyncio.shield(look)
        except asyncio.CancelledError:
            if not look.done():
                self._late[look] = tenant
                look.add_done_callback(self._came_late)
            raise

    def _came_late(self, look: "asyncio.Task[list[str]]") -> None:
        del self._late[look]
        if not look.cancelled():
            look.exception()  # its result is not awaited

    async def _post(self, network: GuardedNetwork, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> Answer:
        host = url.raw_host.decode()
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path or b"/")
        sent = {"host": url.netloc.decode(), **COMMON_HEADERS, **headers, "content-length": str(len(body))}
        request = httpcore.Request(
            "POST",
            target,
            headers=list(sent.items()),
            content=body,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S}, "sni_hostname": host.rstrip(".")},
        )
        async with httpcore.AsyncHTTPConnection(
            target.origin, ssl_context=self._tls, network_backend=network
        ) as connection:
            response = await connection.handle_async_request(request)
            try:
                await _read_some(response)
            finally:
                await response.aclose()
        names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return Answer(response.status, None, names)


async def _read_some(response: httpcore.Response) -> None:
    """Some servers treat a request as failed if its response is not read; no receiver needs to send more than this."""
    size = 0
    async for part in response.aiter_stream():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            return


def _connection_error(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectTimeout):
        return f"did not accept a connection within {CONNECT_TIMEOUT_S:g} s"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        return "no trusted TLS connection could be made"
    return UNRESOLVED if UNRESOLVED in str(error) else "no connection could be made"
