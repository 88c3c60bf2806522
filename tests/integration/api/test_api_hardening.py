"""What an attacker sends: impossible filter values, names as long as a body, addresses inside our network."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from api_help import Served, application, bearer, key_for, served
from fakeredis import FakeAsyncRedis
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.routing.route import CACHED_KEY_BYTES, Router
from understudy.models.store import Store, open_store
from understudy.producer.api import bodies, middleware
from understudy.producer.api.context import Context
from understudy.producer.api.errors import add_error_handlers
from understudy.producer.api.middleware import LoggedFailures
from understudy.producer.api.monitoring import READINESS_KEPT_S, Readiness

SETTINGS = Settings.model_validate({"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}})
LONG = 1_000
"""No error need be longer."""

NONSENSE = [
    "",
    "-1",
    "0",
    "1e308",
    "NaN",
    "inf",
    "-inf",
    str(10**30),
    "9" * 5_000,
    "a\0b",
    "%",
    "_",
    "'",
    "\\",
    "é",
    "\n",
]
RAW = ["%00", "%FF%FE", "%ED%A0%80", "%25", "..%2F..%2Fetc%2Fpasswd", "x" * 5_000, "'%20OR%201=1", "%0D%0AX:%20y"]


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    async with served(store, time.time, SETTINGS) as opened:
        yield opened


async def test_no_value_of_any_parameter_is_a_server_error(api: Served) -> None:
    async with api.client() as http:
        for path, operations in api.app.openapi()["paths"].items():
            for parameter in operations.get("get", {}).get("parameters", []):
                if parameter["in"] != "query" or "{" in path:
                    continue
                for value in NONSENSE:
                    answer = await http.get(path, params={parameter["name"]: value})
                    shown = f"{path}?{parameter['name']}={value[:20]!r}: {answer.status_code} {answer.text[:300]}"
                    assert answer.status_code in (200, 400), shown
                    assert len(answer.content) < LONG or answer.status_code == 200, shown
                answer = await http.get(f"{path}?{parameter['name']}=%00%FF%ED%A0%80")
                assert answer.status_code in (200, 400), f"{path} {parameter['name']}"


async def test_no_id_in_a_path_is_a_server_error_or_repeated_whole(api: Served) -> None:
    async with api.client() as http:
        for path, operations in api.app.openapi()["paths"].items():
            for method in operations if "{" in path else ():
                for raw in RAW:
                    place = f"{path.partition('{')[0]}{raw}{path.partition('}')[2]}"
                    answer = await http.request(method, place)
                    shown = f"{method} {place[:80]}: {answer.status_code} {answer.text[:300]}"
                    assert answer.status_code in (400, 404, 405), shown
                    assert len(answer.content) < LONG, shown


@pytest.mark.parametrize("key", ["k" * 60_000, "k" * 65])
async def test_an_error_does_not_repeat_a_long_name_whole(api: Served, key: str) -> None:
    async with api.client() as http:
        batch = {"input_file_id": "file_x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        answer = await http.post("/v1/batches", json={**batch, "metadata": {key: "x"}})
        assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("metadata")
        assert len(answer.content) < LONG
        for path in ("/v1/keys", "/v1/webhooks/endpoints"):
            answer = await http.post(path, json={key: 1})
            assert answer.status_code == 400 and len(answer.content) < LONG, path
        answer = await http.get(f"/{key}")
        assert answer.status_code == 404 and len(answer.content) < LONG


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com:22/",
        "http://xn--a/",
        "http://a..b/",
        "http://\u3002/",
        "http://[v1.x]/",
        "file:///etc/passwd",
    ],
)
async def test_no_caller_can_make_us_call_an_internal_server(api: Served, url: str) -> None:
    batch = {"input_file_id": "file_x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    job = {"model": "lead/m", "messages": [{"role": "user", "content": "x"}]}
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("/v1/batches", "webhook_url", batch),
        ("/v1/jobs", "callback_url", job),
        ("/v1/chat/completions", "callback_url", job),
        ("/v1/webhooks/endpoints", "url", {}),
    ]
    async with api.client() as http:
        for path, word, body in bodies:
            answer = await http.post(path, json={**body, word: url})
            assert answer.status_code == 400, f"{path}: {answer.text}"
            assert answer.json()["error"]["param"] == word, path
            assert "password" not in answer.json()["error"]["message"].replace("a password", "")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "[",
        "[::1",
        "]",
        "xn--a",
        "a..b",
        "a:b:c",
        "localhost:99999999999999999999",
        "\xff",
        "a b",
        "a/b",
        "a@b",
        "%00",
    ],
)
async def test_no_host_is_a_server_error_or_gets_into_a_link(api: Served, store: Store, host: str) -> None:
    headers = {**bearer(await key_for(store, Scope.ADMIN)), "Host": host.encode("latin-1")}
    job = {"model": "lead/m", "messages": [{"role": "user", "content": "x"}]}
    async with api.client() as http:
        taken = await http.post("/v1/jobs", json=job, headers=headers)
        assert taken.status_code == 202, taken.text
        place = taken.headers["location"].partition("/v1/")[0]
        assert place == "" or place == f"http://{host}"
        assert (place != "") == (host in ("xn--a", "a..b"))
        for path, status in (("/v1/jobs", 200), ("/nothing", 404), ("/docs", 200), ("/openapi.json", 200)):
            assert (await http.get(path, headers=headers)).status_code == status, path


async def test_however_many_ask_whether_it_is_ready_the_stores_are_asked_once(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [1_000.0], []
    monkeypatch.setattr(api.context, "readiness", Readiness(lambda: now[0]))
    monkeypatch.setattr(
        type(api.context.store), "schema_is_current", lambda _: looks.append(1) or asyncio.sleep(0, True)
    )
    async with api.client(address="203.0.113.5") as http:
        answers = await asyncio.gather(*(http.get("/readyz") for _ in range(50)))
        assert {each.text for each in answers} == {'{"ready":true,"database":"ok","redis":"ok"}'} and len(looks) == 1
        now[0] += READINESS_KEPT_S
        await http.get("/readyz")
        assert len(looks) == 2


async def test_the_document_is_written_once(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api.client(address="203.0.113.5") as http:
        first = await http.get("/openapi.json")
        assert first.json() == api.app.openapi()
        monkeypatch.setattr(api.app, "openapi", None)
        assert (await http.get("/openapi.json")).content == first.content


async def test_a_length_of_thousands_of_digits_is_too_long_and_no_server_error(api: Served) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Content-Length": "9" * 5_000}
    async with api.client() as http:
        answer = await http.post("/v1/files", content=b"", headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize("name", ["a\nb", "\x1b]0;owned\x07", "a\0b", "\x9b31m"])
async def test_the_name_of_a_key_cannot_command_the_terminal_that_lists_it(api: Served, name: str) -> None:
    async with api.client() as http:
        answer = await http.post("/v1/keys", json={"name": name, "scopes": ["read"]})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "name"


def test_a_chain_as_long_as_a_body_is_not_remembered() -> None:
    router = Router(SETTINGS)
    for number in range(5):
        step = {"model": "lead/small", "extra": f"{number}" * CACHED_KEY_BYTES}
        chain, _ = router.resolve({"model": "lead/large", "fallbacks": [step]})
        assert len(chain.steps) == 2
    router.resolve({"model": "lead/large", "fallbacks": ["lead/small"]})
    assert len(router._routes) == 1


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """The application on a real server."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Context]:
        async with open_store(None, tmp_path) as store:
            yield Context(SETTINGS, store, FakeAsyncRedis(), time.time)

    with application(opened()) as app:
        async with serving(app) as number:
            yield number


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", log_config=None))
    task = asyncio.create_task(server._serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/files", "/v1/nothing"])
async def test_an_endless_body_is_answered_and_disconnected(
    port: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MOST_BYTES", 4 * 1024 * 1024)
    kind = b"multipart/form-data" if path == "/v1/files" else b"text/plain"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n" % (path.encode(), kind))
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
    sent = 0
    answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        async with asyncio.timeout(30):
            while sent < 1024 * 1024 * 1024:
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()
                sent += 65_536
    except (ConnectionError, BrokenPipeError):
        pass
    assert sent < 100 * 1024 * 1024
    said = await answer
    assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 415")) and b"connection: close" in said.lower()
    writer.close()


async def test_a_refused_body_that_stops_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "LONGEST_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: 9000000\r\n\r\nx"
    writer.write(head)
    async with asyncio.timeout(10):
        said = await reader.read()
    assert said.startswith(b"HTTP/1.1 415")
    writer.close()


async def test_who_sends_a_long_body_to_the_end_reads_why_it_was_refused(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        answer = await http.post("/v1/jobs", content=b"x" * 40_000_000, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind"), [("/v1/jobs", b"application/json"), ("/v1/files", b"multipart/form-data; boundary=edge")]
)
async def test_a_body_that_stops_arriving_is_given_up(
    port: int, path: str, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STALLED_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: 9000\r\n\r\n-"
    writer.write(head % (path.encode(), kind))
    async with asyncio.timeout(10):
        said = await reader.read()
    assert said.startswith(b"HTTP/1.1 408") and b"body_too_slow" in said
    writer.close()


FILE_BEGINS = (
    b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--edge\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
)


@pytest.mark.parametrize(
    ("path", "kind", "bound"),
    [
        ("/v1/jobs", b"application/json", "LONGEST_BODY_S"),
        ("/v1/jobs", b"application/json", "STALLED_S"),
        ("/v1/files", b"multipart/form-data; boundary=edge", "STALLED_S"),
    ],
)
async def test_a_body_that_drips_is_given_up(
    port: int, path: str, kind: bytes, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, bound, 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: 9000\r\n\r\n"
    writer.write(head % (path.encode(), kind) + (FILE_BEGINS if path == "/v1/files" else b""))
    said = asyncio.create_task(reader.readline())  # not to the end: a byte sent after it may reset the connection
    async with asyncio.timeout(10):
        while not said.done():
            writer.write(b" ")
            await asyncio.wait([said], timeout=0.05)
    assert said.result().startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_caller_that_disconnects_in_the_middle_of_its_body_is_not_an_error(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await writer.drain()
        writer.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        counted = 'understudy_http_request_seconds_count{method="POST",route="/v1/jobs",status="400"} 3.0'
        async with asyncio.timeout(30):
            while counted not in (await http.get("/metrics")).text:
                await asyncio.sleep(0.05)
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "in its answer"])
async def test_a_defect_is_logged_with_its_place_and_without_its_words(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def broken() -> AsyncIterator[bytes]:
            yield b"x"
            raise ValueError("canary\nprompt")

        if begun:
            return StreamingResponse(broken())
        raise ValueError("canary\nprompt")

    async with serving(LoggedFailures(app)) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        if begun:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get("/breaks")
        else:
            answer = await http.get("/breaks")
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "GET /breaks failed: ValueError < " in caplog.text and "test_api_hardening.py" in caplog.text
    assert "canary" not in caplog.text
