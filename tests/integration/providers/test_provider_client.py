"""The provider client against a real server on loopback: what arrives, what times out, what is closed."""

import asyncio
import gzip
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from understudy.worker.providers import client as client_module
from understudy.worker.providers.base import BadAnswer, Endpoint, WireRequest
from understudy.worker.providers.client import ProviderClient

REQUEST = WireRequest("/chat", {"authorization": "Bearer canary-secret"}, b'{"question":1}')
PROXY_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Provider:
    """A server with the test's handler, and the requests it saw."""

    url: str = ""
    requests: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url + "/v1", "canary-secret")


@asynccontextmanager
async def a_provider(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    provider = Provider()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        provider.requests.append(request)
        provider.bodies.append(await request.read())
        assert request.transport is not None
        provider.peers.add(request.transport.get_extra_info("peername"))
        try:
            return await handler(request)
        except (ConnectionError, asyncio.CancelledError):
            provider.left.set()
            raise

    server = web.Server(handle, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    provider.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield provider
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


async def drip(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def hang(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def test_a_call_sends_body_and_headers_and_returns_status_headers_and_body() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=429, body=b'{"ok":true}', headers={"X-RateLimit-Reset": "1s"})

    async with a_provider(answer) as provider, ProviderClient(max_connections=2) as client:
        status, headers, body = await client.send(REQUEST, provider.endpoint, 5)
        await client.send(REQUEST, provider.endpoint, 5)

    assert (status, body, headers["x-ratelimit-reset"]) == (429, b'{"ok":true}', "1s")
    seen = provider.requests[1]
    assert (seen.method, seen.path, provider.bodies[0]) == ("POST", "/v1/chat", REQUEST.content)
    assert seen.headers["Authorization"] == "Bearer canary-secret"
    assert seen.headers["Content-Length"] == str(len(REQUEST.content))
    assert len(provider.peers) == 1, "the connection is used again"


async def test_cookies_of_one_call_do_not_reach_the_next() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "account=1"})

    async with a_provider(answer) as provider, ProviderClient(1) as client:
        by_name = Endpoint(provider.url.replace("127.0.0.1", "localhost"))
        await client.send(REQUEST, by_name, 5)
        await client.send(REQUEST, by_name, 5)
    assert "Cookie" not in provider.requests[1].headers


async def test_a_compressed_answer_is_unpacked() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b'{"ok":1}'), headers={"Content-Encoding": "gzip"})

    async with a_provider(answer) as provider, ProviderClient(1) as client:
        assert (await client.send(REQUEST, provider.endpoint, 5))[2] == b'{"ok":1}'


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with a_provider(answer) as provider, ProviderClient(1) as client:
        assert (await client.send(REQUEST, provider.endpoint, 5))[0] == 307
    assert len(provider.requests) == 1


@pytest.mark.parametrize("handler", [drip, hang])
async def test_the_timeout_is_a_total_even_when_bytes_keep_dripping(handler: Handler) -> None:
    async with a_provider(handler) as provider, ProviderClient(1) as client:
        started = time.monotonic()
        with pytest.raises(httpx.ReadTimeout, match=r"within 0\.3 s"):
            await client.send(REQUEST, provider.endpoint, 0.3)
        assert 0.25 < time.monotonic() - started < 2
        await asyncio.wait_for(provider.left.wait(), 5)


def in_pieces(*pieces: bytes, every_s: float = 0.1) -> Handler:
    """An answer that arrives piece by piece."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(every_s)
        await response.write_eof()
        return response

    return answer


@pytest.fixture
def half_a_second_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PACE_S", 0.5)


@pytest.mark.parametrize(
    "handler",
    [in_pieces(*[b"{"] * 300), in_pieces(b'{"half of it', b"...", every_s=60), in_pieces(b"x" * 9_000, *[b"x"] * 300)],
    ids=["drips", "stops", "drips later"],
)
async def test_an_answer_that_has_begun_and_comes_too_slowly_is_given_up_long_before_the_timeout(
    handler: Handler, half_a_second_of_patience: None
) -> None:
    async with a_provider(handler) as provider, ProviderClient(1) as client:
        with pytest.raises(httpx.ReadTimeout, match=r"sent less than 3,000 bytes in 0\.5 s"):
            await asyncio.wait_for(client.send(REQUEST, provider.endpoint, 600), 10)
        await asyncio.wait_for(provider.left.wait(), 5)


@pytest.mark.parametrize(
    "pieces",
    [[b"\n"] * 10 + [b"{}"], [b"x" * 3_000] * 10, [b"{}"]],
    ids=["blank lines while it waits", "slow and steady", "at once"],
)
async def test_an_answer_that_goes_on_is_waited_for(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PACE_S", 1.5)
    async with a_provider(in_pieces(*pieces, every_s=0.2)) as provider, ProviderClient(1) as client:
        _, _, body = await client.send(REQUEST, provider.endpoint, 600)
    assert body == b"".join(pieces)


@pytest.mark.parametrize("handler", [drip, hang])
async def test_a_cancelled_call_closes_its_connection(handler: Handler) -> None:
    async with a_provider(handler) as provider, ProviderClient(1) as client:
        call = asyncio.create_task(client.send(REQUEST, provider.endpoint, 30))
        await _until(lambda: bool(provider.bodies))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(provider.left.wait(), 5)


async def test_more_calls_than_aiohttps_own_cap_of_a_hundred_run_at_once() -> None:
    everybody_is_here = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if len(provider.requests) == 150:
            everybody_is_here.set()
        await everybody_is_here.wait()
        return web.Response(body=b"{}")

    async with a_provider(answer) as provider, ProviderClient(max_connections=150) as client:
        replies = await asyncio.gather(*(client.send(REQUEST, provider.endpoint, 20) for _ in range(150)))
    assert {status for status, _, _ in replies} == {200}


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversized_answer_is_refused_and_its_connection_closed(
    announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1 << 20)
    sent = 0

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(1 << 30)} if announced else {})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            sent += 65_536

    async with a_provider(flood) as provider, ProviderClient(1) as client:
        with pytest.raises(BadAnswer, match="larger than 1 MB"):
            await client.send(REQUEST, provider.endpoint, 10)
        await asyncio.wait_for(provider.left.wait(), 5)
    assert sent < 32 << 20


async def test_a_compressed_answer_is_measured_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1 << 20)

    async def bomb(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b"x" * (8 << 20)), headers={"Content-Encoding": "gzip"})

    async with a_provider(bomb) as provider, ProviderClient(1) as client:
        with pytest.raises(BadAnswer):
            await client.send(REQUEST, provider.endpoint, 10)


@pytest.mark.parametrize("after_headers", [True, False])
async def test_a_connection_lost_after_sending_is_not_taken_for_a_failed_connect(after_headers: bool) -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        if after_headers:
            await response.prepare(request)
            await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with a_provider(hang_up) as provider, ProviderClient(1) as client:
        with pytest.raises(httpx.ReadError, match="before its answer was complete"):
            await client.send(REQUEST, provider.endpoint, 5)


async def test_what_speaks_no_http_is_a_protocol_error() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        await writer.drain()

    async with a_raw_server(babble) as port, ProviderClient(1) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.send(REQUEST, Endpoint(f"http://127.0.0.1:{port}"), 5)


async def test_a_refused_connection_names_the_host_and_no_secret() -> None:
    async with ProviderClient(1) as client:
        with pytest.raises(httpx.ConnectError) as caught:
            await client.send(REQUEST, Endpoint("http://127.0.0.1:9/canary/v1?key=canary"), 5)
    assert "127.0.0.1" in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_an_unknown_name_is_a_failed_connect() -> None:
    async with ProviderClient(1) as client:
        with pytest.raises(httpx.ConnectError, match="could not be resolved"):
            await client.send(REQUEST, Endpoint("http://no-such-host.invalid/v1"), 5)


@pytest.mark.parametrize("base_url", ["ftp://host/v1", "no url", "http:///v1", "http://user:canary@host/v1"])
async def test_a_base_url_that_is_none_is_said_without_repeating_it(base_url: str) -> None:
    async with ProviderClient(1) as client:
        with pytest.raises(httpx.UnsupportedProtocol, match="base_url") as caught:
            await client.send(REQUEST, Endpoint(base_url), 5)
    assert base_url not in str(caught.value)


@pytest.mark.parametrize("secret", ["canary\u2026", "canary\n", "canary\r\nx: y"])
async def test_a_key_that_cannot_be_a_header_is_said_without_repeating_it(secret: str) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    request = WireRequest("/chat", {"authorization": f"Bearer {secret}"}, b"{}")
    async with a_provider(answer) as provider, ProviderClient(1) as client:
        with pytest.raises(httpx.LocalProtocolError, match="key") as caught:
            await client.send(request, provider.endpoint, 5)
    assert "canary" not in str(caught.value)
    assert provider.requests == []


async def test_a_silent_server_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts the TCP connection and never starts TLS: nothing was sent."""
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.2)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with a_raw_server(listen) as port, ProviderClient(1) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.send(REQUEST, Endpoint(f"https://127.0.0.1:{port}"), 5)


async def test_calls_go_through_the_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b'{"via":"proxy"}')

    async with a_provider(forward) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://user:word@"))
        async with ProviderClient(1) as client:
            body = (await client.send(REQUEST, Endpoint("http://provider.invalid/v1"), 5))[2]
        seen = proxy.requests[0]
        assert body == b'{"via":"proxy"}'
        assert seen.headers["Host"] == "provider.invalid"
        assert seen.headers["Proxy-Authorization"].startswith("Basic ")


async def test_no_proxy_and_this_machine_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"direct")

    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "other.example, provider.invalid")
    async with a_provider(answer) as provider, ProviderClient(1) as client:
        assert (await client.send(REQUEST, provider.endpoint, 5))[2] == b"direct"
        with pytest.raises(httpx.ConnectError, match="could not be resolved"):
            await client.send(REQUEST, Endpoint("http://api.provider.invalid/v1"), 5)
        with pytest.raises(httpx.ProxyError):
            await client.send(REQUEST, Endpoint("https://elsewhere.invalid/v1"), 5)


async def test_a_proxy_of_an_unknown_kind_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:canary@127.0.0.1:9")
    async with ProviderClient(1) as client:
        with pytest.raises(httpx.ProxyError, match="set HTTPS_PROXY") as caught:
            await client.send(REQUEST, Endpoint("https://provider.invalid/v1"), 5)
    assert "canary" not in str(caught.value)


async def test_https_goes_through_the_proxys_tunnel(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"through the tunnel")

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with a_provider(answer, tls) as provider, a_tunnel(provider.url) as (proxy_url, asked):
        monkeypatch.setenv("HTTPS_PROXY", proxy_url.replace("://", "://user:word@"))
        async with ProviderClient(1) as client:
            body = (await client.send(REQUEST, Endpoint("https://provider.invalid/v1"), 5))[2]
    assert body == b"through the tunnel"
    assert asked[0].startswith(b"CONNECT provider.invalid:443 HTTP/1.1")
    assert b"proxy-authorization: basic dxnlcjp3b3jk" in asked[0].lower()


async def test_a_certificate_is_trusted_only_when_ssl_cert_file_names_it(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"trusted")

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*certificate)
    async with a_provider(answer, tls) as provider:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with ProviderClient(1) as stranger:
            with pytest.raises(httpx.ConnectError, match="TLS"):
                await stranger.send(REQUEST, provider.endpoint, 5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        async with ProviderClient(1) as friend:
            assert (await friend.send(REQUEST, provider.endpoint, 5))[2] == b"trusted"


async def test_a_ca_file_that_is_missing_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(ValueError, match="SSL_CERT_FILE"):
        ProviderClient(1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and provider.invalid, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:provider.invalid"
    subject = ["-subj", "/CN=provider.invalid", "-addext", names, "-days", "2"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(paths[1])]
    command = ["openssl", "req", "-x509", *key, *subject, "-out", str(paths[0])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


@asynccontextmanager
async def a_tunnel(to_url: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that connects everyone to one address, and the heads of the requests it got."""
    asked: list[bytes] = []
    target = httpx.URL(to_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection(target.host, target.port)
        await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))

    async with a_raw_server(serve) as port:
        yield f"http://127.0.0.1:{port}", asked


@asynccontextmanager
async def a_raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """The port of a server without HTTP; on exit, waits until its connections have ended."""
    ended: list[asyncio.Future[None]] = []

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.get_running_loop().create_future())
        mine = ended[-1]
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()
            mine.set_result(None)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*ended), 5)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def _until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)
