"""The only place that constructs the HTTP client, and the only way in which providers are called.

httpx's interface over aiohttp's connections: httpx's own pool costs more CPU per request the more connections are open.
Requests go directly to the transport: nothing of httpx's client layer is needed here (redirects, cookies, auth), and it
is half of the cost of a request.

Errors of `send`; their texts contain a host at most, never a URL, a header or a body:
    httpx.UnsupportedProtocol, LocalProtocolError     the address or a header is wrong; nothing was sent
    httpx.ConnectError, ConnectTimeout, ProxyError    nothing was sent
    httpx.ReadTimeout                                 no complete answer in time, or one that came too slowly
    httpx.ReadError, RemoteProtocolError              the connection was lost, or was not HTTP, after sending
    httpx.DecodingError                               the answer's compression is broken
    BadAnswer                                         the answer exceeds our limit
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from understudy.models.disk_buffer import append, overflow_file
from understudy.worker.job.memory import SMALL_BYTES, room_for
from understudy.worker.providers.base import BadAnswer, Endpoint, WireRequest
from understudy.worker.providers.proxies import Proxies, proxy_at

CONNECT_TIMEOUT_S = 10.0
"""For DNS, TCP and TLS together. Providers accept a connection in well under a second or not at all."""

PACE_BYTES, PACE_S = 3_000, 30.0
"""Once begun, an answer must continue at this pace, or end: providers send it when it is complete, however long that
took. Leading whitespace is not counted; some providers send it while a request waits."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
HELD_BYTES = 8 * 1024 * 1024
"""Bytes of all incoming answers held in memory; the excess goes to disk."""

MAX_ERROR_BYTES = 256 * 1024
"""Bytes of an error response that are read: more is not examined."""

KEEPALIVE_S = 4.0
"""Below the 5 s after which common servers (uvicorn, vLLM) close an idle connection: a request that races with the
close is lost, and it is unknown whether it was billed."""

ROUTES_KEPT = 1024
COMMON_HEADERS = {"accept": "application/json", "accept-encoding": "gzip, deflate", "user-agent": "understudy"}


class Route(NamedTuple):
    """Where a request is sent, computed once per address."""

    url: httpx.URL
    transport: AiohttpTransport
    headers: Mapping[str, str]


class ProviderClient:
    """Calls providers over kept-alive connections. An async context manager; leaving it closes them all.

    `max_connections` is the maximum number of calls in flight. Proxies and CA files come from the environment:
    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR.
    """

    def __init__(self, max_connections: int, data: Path | None = None) -> None:
        """Large answers wait in the folder `data` until there is memory for them; without a folder, in memory."""
        self.max_connections = max_connections
        self._data = data
        self._held = _Held()
        self._tls = _tls_context()
        self._proxies = Proxies.from_environment()
        self._transports: dict[str | None, AiohttpTransport] = {}
        self._route = lru_cache(maxsize=ROUTES_KEPT)(self._find_route)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        logging.getLogger("httpx").setLevel(logging.WARNING)
        connector = aiohttp.TCPConnector(limit=self.max_connections, keepalive_timeout=KEEPALIVE_S, ssl=self._tls)
        # Cookies would carry one account's session into another's calls.
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(
        self, request: WireRequest, endpoint: Endpoint, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One POST: status, headers (lower-case names) and the whole decoded body, or the beginning of an error's.

        `timeout_s` is the total from now to the last byte. Once the body has begun, it must also keep a pace
        (`PACE_S`), so that a provider that trickles bytes does not hold a slot all that time. Cancellation closes the
        connection.
        """
        with closing(_Body(self._data, self._held)) as body:
            response = await self._receive(request, endpoint, timeout_s, body)
            return response.status_code, _plain_headers(response), await body.content()

    async def _receive(
        self, request: WireRequest, endpoint: Endpoint, timeout_s: float, body: "_Body"
    ) -> httpx.Response:
        url, transport, headers = self._route(endpoint.base_url, request.path)
        try:
            outgoing = _outgoing(url, {**headers, **request.headers}, request.content)
            async with asyncio.timeout(timeout_s) as deadline:
                response = await transport.handle_async_request(outgoing)
                try:
                    await _read(response, body)
                finally:
                    await response.aclose()
        except _TooSlow:
            words = f"{url.host} sent less than {PACE_BYTES:,} bytes in {PACE_S:g} s after its answer had begun"
            raise httpx.ReadTimeout(words) from None
        except (httpx.TransportError, aiohttp.ClientError, OSError) as error:
            if deadline.expired():
                raise httpx.ReadTimeout(f"{url.host} did not complete its answer within {timeout_s:g} s") from None
            raise _explained(error, url.host) from None
        except ValueError:
            raise httpx.LocalProtocolError(
                f"a header for {url.host} contains characters that HTTP does not allow; correct its key or headers"
            ) from None
        return response

    def _find_route(self, base_url: str, path: str) -> Route:
        url = _checked_url(base_url, path)
        address = self._proxies.for_url(url)
        proxy = None if address is None else proxy_at(address)
        if address not in self._transports:
            self._transports[address] = AiohttpTransport(verify=self._tls, proxy=proxy, client=lambda: self._session)
        # aiohttp sends the proxy's headers only with a CONNECT, which http:// does without.
        for_proxy = dict(proxy.headers) if proxy and url.scheme == "http" else {}
        return Route(url, self._transports[address], COMMON_HEADERS | for_proxy)


def _checked_url(base_url: str, path: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.rstrip("/") + path)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.UnsupportedProtocol("A provider's base_url is not a valid http:// or https:// URL; correct it.")
    if url.userinfo:
        raise httpx.UnsupportedProtocol("A provider's base_url contains a user or password; move them to its headers.")
    return url


def _tls_context() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ValueError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({error.strerror}); correct it.") from None


def _outgoing(url: httpx.URL, headers: Mapping[str, str], content: bytes) -> httpx.Request:
    timeouts = {"connect": CONNECT_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}
    return httpx.Request("POST", url, headers=headers, content=content, extensions={"timeout": timeouts})


def _plain_headers(response: httpx.Response) -> dict[str, str]:
    raw = response.headers.raw
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


class _TooSlow(Exception):
    """The body is slower than the pace."""


class _Held:
    """The bytes of all incoming answers in memory."""

    def __init__(self) -> None:
        self.bytes = 0


class _Body:
    """The bytes of an incoming answer: in memory, or on disk once those of all answers exceed the limit."""

    def __init__(self, data: Path | None, held: _Held) -> None:
        self.size = 0
        self._data = data
        self._held = held
        self._mine = 0  # its share of what is held
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._on_disk = 0  # the part in memory after a full disk truncated the file

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._chunks.append(chunk)
        is_too_much = self.size > SMALL_BYTES and self._held.bytes + len(chunk) > HELD_BYTES
        if self._data is not None and (self._file is not None or is_too_much):
            self._move(self._data)
        else:
            self._held.bytes += len(chunk)
            self._mine += len(chunk)

    async def content(self) -> bytes:
        """The whole body, once there is memory for it."""
        if self.size > SMALL_BYTES:
            await room_for(self.size)
        if self._file is None:
            return b"".join(self._chunks)
        self._file.seek(0)
        return b"".join((self._file.read(self._on_disk), *self._chunks))

    def close(self) -> None:
        self._let_go()
        self._chunks.clear()
        if self._file is not None:
            self._file.close()

    def _let_go(self) -> None:
        self._held.bytes -= self._mine
        self._mine = 0

    def _move(self, data: Path) -> None:
        """If the disk is full, the answer stays in memory and is not lost."""
        try:
            self._file = self._file or overflow_file(data)
            while self._chunks:
                append(self._file, self._chunks[0])
                self._on_disk += len(self._chunks.pop(0))
            self._let_go()
        except OSError:
            self._data = None


async def _read(response: httpx.Response, body: _Body) -> None:
    """The decoded body. An answer that is too large or too slow is abandoned as soon as that is known."""
    is_answer = 200 <= response.status_code < 300
    declared = response.headers.get("content-length", "")
    if is_answer and declared.isdigit() and int(declared) > MAX_ANSWER_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(None) as pace:
            checked = 0
            async for chunk in response.aiter_bytes():
                if is_answer and body.size + len(chunk) > MAX_ANSWER_BYTES:
                    raise _too_large()
                body.add(chunk)
                if not is_answer and body.size > MAX_ERROR_BYTES:
                    break
                begins = pace.when() is None and not chunk.isspace()
                if begins or (pace.when() is not None and body.size - checked >= PACE_BYTES):
                    pace.reschedule(asyncio.get_running_loop().time() + PACE_S)
                    checked = body.size
    except TimeoutError:
        if pace.expired():
            raise _TooSlow from None
        raise


def _too_large() -> BadAnswer:
    return BadAnswer(f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MB")


def _explained(error: Exception, host: str) -> httpx.TransportError:
    """The error by its meaning for the call: whether the request was sent.

    httpx-aiohttp reports every lost connection as a connect timeout, so aiohttp's own error is what counts.
    """
    cause = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
    match cause:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return httpx.ProxyError(f"the proxy did not connect us to {host}")
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(f"{host} did not accept a connection within {CONNECT_TIMEOUT_S:g} s")
        case aiohttp.ClientConnectorDNSError():
            return httpx.ConnectError(f"the name {host} could not be resolved")
        case aiohttp.ClientSSLError():
            return httpx.ConnectError(f"no trusted TLS connection to {host} could be made")
        case aiohttp.ClientConnectorError():
            code = cause.os_error.errno
            return httpx.ConnectError(f"no connection to {host}: {os.strerror(code).lower() if code else 'refused'}")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(f"{host} sent a response that is not HTTP")
        case _:
            return httpx.ReadError(f"{host} closed the connection before its answer was complete")
