"""What anyone can send before a key is checked: endless heads, trailers and connections, and answers left unread."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from understudy.producer.server import connection_limit as crowd
from understudy.producer.server import http_protocol
from understudy.producer.server.connection_limit import ConnectionLimit, connections_allowed
from understudy.producer.server.http_protocol import bounded

HEAD = b"GET /quick HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
PATIENCE_S = 30
LONG = 24 * 1024 * 1024
"""More bytes of an unread answer than the system buffers."""


@dataclass
class Server:
    crowd: ConnectionLimit
    port: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    held: int = 0
    gone: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def said_to(self, *sent: bytes) -> bytes:
        """Everything the server sends until it closes the connection."""
        reader, writer = await self.connect()
        try:
            for each in sent:
                writer.write(each)
                await writer.drain()
        except ConnectionError:
            pass
        return await rest(reader)

    async def status(self) -> int:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as http:
            return (await http.get("/quick", timeout=PATIENCE_S)).status_code


async def rest(reader: asyncio.StreamReader) -> bytes:
    said = b""
    async with asyncio.timeout(PATIENCE_S):
        try:
            while part := await reader.read(65_536):
                said += part
        except ConnectionError:
            pass
    return said


def refusal(said: bytes) -> tuple[int, str]:
    """The status and code of the only answer, which is complete and the last of its connection."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert said.count(b"HTTP/1.1 ") == 1 and b"connection: close" in head
    assert int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]) == len(body)
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def application(server: Server) -> FastAPI:
    app = FastAPI()

    @app.get("/quick")
    async def quick() -> str:
        return "quick"

    @app.get("/healthz")
    async def healthz() -> str:
        return "alive"

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @app.get("/held")
    async def held(request: Request, response: Response, known: bool = False, tenant: str | None = None) -> str:
        if (known or tenant) and not request.state.be_known(tenant):
            response.status_code = 429
            return "no more"
        server.held += 1
        waiting = asyncio.create_task(server.release.wait())
        leaving = asyncio.create_task(request.receive())  # none of its body is left
        while not waiting.done() and (not leaving.done() or leaving.result()["type"] != "http.disconnect"):
            if leaving.done():
                leaving = asyncio.create_task(request.receive())
            await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
        server.gone += not waiting.done()
        waiting.cancel()
        leaving.cancel()
        return "held"

    @app.get("/long")
    async def long() -> Response:
        return Response(bytes(LONG))

    return app


Serve = Callable[..., Any]


@asynccontextmanager
async def serving(most: int = 1_000) -> AsyncIterator[Server]:
    server = Server(ConnectionLimit(most))
    config = uvicorn.Config(
        application(server), port=0, http=bounded(server.crowd), backlog=8, ws="none", lifespan="off"
    )
    runs = uvicorn.Server(config)
    task = asyncio.create_task(runs._serve())
    async with asyncio.timeout(PATIENCE_S):
        while not runs.started:
            await asyncio.sleep(0.01)
    server.port = runs.servers[0].sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.release.set()
        for writer in server.writers:
            writer.transport.abort()
        runs.should_exit = True
        await task


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as opened:
        yield opened


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


MANY = b"".join(b"X-%05d: a\r\n" % number for number in range(20_000))
ENDLESS = {
    "many headers": [HEAD, MANY],
    "one header": [HEAD, b"X: ", b"a" * 300_000],
    "one name": [HEAD, b"a" * 300_000],
    "the url": [b"GET /", b"a" * 300_000],
    "the query": [b"GET /?q=", b"a" * 300_000],
    "headers in small pieces": [HEAD, *[b"X-1: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"] * 3_000],
    "trailers": [POST, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", MANY],
    "one trailer": [POST, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", b"a" * 300_000],
    "what a chunk says of itself": [POST, b"Transfer-Encoding: chunked\r\n\r\n2;", b"a" * 300_000],
    "101 headers": [HEAD, b"X: a\r\n" * 101, b"\r\n"],
}


@pytest.mark.parametrize("sent", ENDLESS.values(), ids=ENDLESS)
async def test_a_head_without_end_is_answered_with_431(server: Server, sent: list[bytes]) -> None:
    assert refusal(await server.said_to(*sent)) == (431, "head_too_long")
    assert await server.status() == 200


async def test_a_head_without_end_costs_no_more_than_its_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps sending is disconnected."""
    reader, writer = await server.connect()
    sent = 0
    try:
        while sent < 200_000_000:
            writer.write(HEAD if sent == 0 else MANY)
            await writer.drain()
            sent += len(MANY)
    except ConnectionError:
        pass
    assert sent < 50_000_000
    assert (await rest(reader)).startswith((b"HTTP/1.1 431", b""))


@pytest.mark.parametrize("times", [1, 7])
async def test_a_head_within_the_bounds_is_served_however_it_arrives(server: Server, times: int) -> None:
    head = (
        HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 600) for number in range(98)) + b"Connection: close\r\n\r\n"
    )
    step = len(head) // times + 1
    said = await server.said_to(*(head[place : place + step] for place in range(0, len(head), step)))
    assert said.startswith(b"HTTP/1.1 200")
    body = b"a" * 5_000_000
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        for _ in range(2):
            assert (await http.post("/echo", content=body, timeout=PATIENCE_S)).content == body

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"b" * 1_000

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        assert (await http.post("/echo", content=chunks(), timeout=PATIENCE_S)).content == b"b" * 300_000


async def test_trailers_are_read_and_thrown_away(server: Server) -> None:
    body = b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Forwarded-For: a\r\n\r\n"
    said = await server.said_to(POST + body)
    assert said.startswith(b"HTTP/1.1 200") and said.endswith(b"{}")


async def test_heads_that_are_not_complete_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HELD_BYTES", 100_000)
    async with serving() as server:
        others = [await server.connect() for _ in range(4)]
        for _, writer in others[:3]:
            writer.write(HEAD + b"X: " + b"a" * 30_000)
            await writer.drain()
        others[3][1].write(HEAD + b"X: " + b"a" * 30_000)
        assert refusal(await rest(others[3][0])) == (503, "too_many_connections")
        others[0][1].close()
        assert await server.status() == 200


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"X: ", b"\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for(
    server: Server, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.2)
    said = await server.said_to(sent)
    assert refusal(said) == (408, "head_too_slow") if sent else said == b""


async def test_a_head_that_drips_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.3)
    reader, writer = await server.connect()
    said = asyncio.create_task(rest(reader))
    writer.write(HEAD)
    async with asyncio.timeout(PATIENCE_S):
        while not said.done():
            writer.write(b"X: a\r\n")
            await asyncio.wait([said], timeout=0.05)
    assert refusal(said.result()) == (408, "head_too_slow")


async def test_the_next_head_of_a_connection_has_its_deadline_too(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.5)
    reader, writer = await server.connect()
    writer.write(HEAD + b"\r\n")
    assert (await reader.readuntil(b'"quick"')).startswith(b"HTTP/1.1 200")
    writer.write(HEAD)
    assert refusal(await rest(reader)) == (408, "head_too_slow")


async def test_the_rest_of_a_body_is_not_waited_for_after_its_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.3)
    reader, writer = await server.connect()
    writer.write(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    said = asyncio.create_task(rest(reader))
    async with asyncio.timeout(PATIENCE_S):
        while not said.done():
            writer.write(b"a")
            await asyncio.wait([said], timeout=0.1)
    assert said.result().startswith(b"HTTP/1.1 404") and said.result().count(b"HTTP/1.1") == 1


async def test_requests_that_wait_for_no_answer_are_answered_in_turn(server: Server) -> None:
    said = await server.said_to(*[HEAD + b"\r\n"] * 9, HEAD + b"Connection: close\r\n\r\n")
    assert said.count(b"HTTP/1.1 200") == 10


async def test_thousands_of_requests_at_once_are_refused_after_the_answers_to_the_first(server: Server) -> None:
    said = await server.said_to((HEAD + b"\r\n") * 5_000)
    answers = said.split(b"HTTP/1.1 ")[1:]
    assert 1 < len(answers) <= http_protocol.MOST_PIPELINED + 3
    assert all(each.startswith(b"200") for each in answers[:-1]) and answers[-1].startswith(b"429")


async def test_bytes_that_are_not_http_are_refused_after_the_answer_to_the_request_before(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n\x00nonsense\r\n\r\n")
    await until(lambda: server.held == 1)
    server.release.set()
    said = await rest(reader)
    assert said.index(b'"held"') < said.index(b"HTTP/1.1 400") and b"invalid_http" in said


async def test_a_disconnect_reaches_all_requests_of_the_connection(server: Server) -> None:
    _, writer = await server.connect()
    writer.write(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
    await until(lambda: server.held == 1)
    writer.close()
    await until(lambda: server.gone == 1)


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.2"])
async def test_another_protocol_is_not_spoken_and_the_request_is_answered(server: Server, protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n" % protocol
    said = await server.said_to(HEAD + upgrade + b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 100)
    assert said.startswith(b"HTTP/1.1 200") and said.count(b"HTTP/1.1 ") == 1 and b"connection: close" in said


async def test_an_answer_that_is_not_read_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_S", 0.3)
    reader, writer = await server.connect()
    writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await reader.readexactly(9) == b"HTTP/1.1 "
    writer.transport.pause_reading()
    await until(lambda: not server.crowd._all)
    writer.transport.resume_reading()
    assert len(await rest(reader)) < LONG


async def test_an_answer_that_is_read_slowly_is_whole(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_S", 0.3)
    reader, writer = await server.connect()
    writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    length = 0
    async with asyncio.timeout(PATIENCE_S):
        while part := await reader.read(2 * 1024 * 1024):
            length += len(part)
            await asyncio.sleep(0.03)  # a slow network
    assert length > LONG


async def crowding(server: Server, count: int, sent: bytes) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    opened = []
    for _ in range(count):
        reader, writer = await server.connect()
        writer.write(sent)
        opened.append((reader, writer))
    return opened


@pytest.mark.parametrize("sent", [b"", HEAD, b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"])
async def test_connections_that_ask_nothing_take_no_place_from_who_does(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "YOUNG_S", 0.2)
    monkeypatch.setattr(crowd, "ASKED_S", 0.2)
    monkeypatch.setattr(http_protocol, "HEAD_S", 10 * PATIENCE_S)  # no one is disconnected for being slow
    async with serving(most=20) as server:
        opened = await crowding(server, 100, sent)
        ends = [asyncio.create_task(rest(reader)) for reader, _ in opened]
        async with asyncio.timeout(PATIENCE_S):
            while await server.status() != 200:
                await asyncio.sleep(0.05)
        await until(lambda: sum(not each.done() for each in ends) <= 20 + crowd.SILENT + crowd.UNREAD)
    await asyncio.wait(ends)


async def test_of_a_crowd_that_asks_at_once_each_is_answered() -> None:
    async with serving(most=20) as server:
        opened = await crowding(server, 70, b"GET /held?known=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: server.held == 20)
        server.release.set()
        statuses = [(await reader.readuntil(b"\r\n"))[9:12] for reader, _ in opened]
        assert statuses.count(b"200") >= 20 and statuses.count(b"200") + statuses.count(b"503") == 70


async def test_callers_without_a_key_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "ASKED_S", 0.0)
    async with serving(most=20) as server:
        await crowding(server, 20, b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: server.held == 20)
        assert await server.status() == 200
        await until(lambda: server.gone == 1)


async def asked_by(server: Server, tenant: str, count: int) -> list[asyncio.Task[bytes]]:
    """Requests that are held until the release or refused at once, when each of them is one of the two."""
    held = server.held
    opened = await crowding(server, count, f"GET /held?tenant={tenant} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answers = [asyncio.create_task(reader.readuntil(b"\r\n")) for reader, _ in opened]
    await until(lambda: server.held - held + len(refused(answers)) == count)
    return answers


def refused(answers: Sequence[asyncio.Task[bytes]]) -> list[bytes]:
    return [each.result() for each in answers if each.done() and each.result()[9:12] == b"429"]


async def test_a_tenant_leaves_places_to_the_others_however_many_requests_it_has() -> None:
    async with serving(most=20) as server:
        first = await asked_by(server, "rival", 20)
        assert len(refused(first)) == 4 and await server.status() == 200
        others = await asked_by(server, "acme", 3)
        assert not refused(others)
        assert len(refused(await asked_by(server, "rival", 2))) == 2
        server.release.set()
        await asyncio.gather(*first, *others)
        assert not refused(others)
        again = await asked_by(server, "rival", 16)
        await asyncio.gather(*again)
        assert not refused(again), "what was answered takes no place"


async def test_callers_with_a_key_keep_their_places_and_newcomers_are_told_to_come_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(most=20) as server:
        opened = await crowding(server, 20, b"GET /held?known=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: server.held == 20)
        for _ in range(3):
            said = await server.said_to(HEAD + b"\r\n")
            assert refusal(said) == (503, "too_many_connections") and b"retry-after: 5" in said
        assert len([each for each in caplog.messages if "more get a 503" in each]) == 1
        assert (await server.said_to(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))[9:12] == b"200"
        server.release.set()
        for reader, _ in opened:
            assert (await reader.readuntil(b'"held"')).startswith(b"HTTP/1.1 200")
        assert await server.status() == 200


@pytest.mark.parametrize(
    ("soft", "hard", "allowed"),
    [(200, 200, 36), (1_024, 1_024, 448), (1_024, 2**20, 10_000), (256, resource.RLIM_INFINITY, 10_000), (10, 10, 8)],
)
def test_descriptors_are_left_for_the_stores(
    soft: int, hard: int, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(crowd.resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(crowd.resource, "setrlimit", lambda _, new: limits.append(new))
    assert connections_allowed() == allowed
    assert limits[-1][1] == hard
