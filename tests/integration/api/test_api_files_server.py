"""Uploads to a real HTTP server: how clients and connections handle a refusal, and wrong lengths."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from api_help import application
from fakeredis import FakeAsyncRedis

from understudy.models.cancellation import running
from understudy.models.config.settings import ApiSettings, Settings
from understudy.models.store import open_store
from understudy.producer.api.context import Context
from understudy.producer.api.files.blobs import open_blobs, sweep_files

LIMIT = 100_000
BODY = (
    b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--edge\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\n\r\n--edge--\r\n'
)
HEAD = "POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=edge\r\n"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    settings = Settings(data=tmp_path, api=ApiSettings(max_file_bytes=LIMIT))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Context]:
        async with open_store(None, tmp_path) as store:
            context = Context(settings, store, FakeAsyncRedis(), lambda: 0.0, open_blobs(settings))
            async with running(sweep_files(context), name="sweep-files"):
                yield context

    with application(opened()) as app:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        serving = asyncio.create_task(server._serve())
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        await serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


async def test_the_sdk_is_told_that_a_file_is_too_large_while_it_still_sends(port: int, folder: Path) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as sdk:
        with pytest.raises(openai.APIStatusError, match="longer than 100,000 bytes") as refused:
            await sdk.files.create(file=("big.jsonl", b"x" * 30_000_000), purpose="batch")
        assert refused.value.status_code == 413
        made = await sdk.files.create(file=("small.jsonl", b"{}\n"), purpose="batch")
        await sdk.files.delete(made.id)
    await emptied(folder)


async def test_a_chunked_upload_without_a_length_is_refused_where_it_passes_the_limit(port: int, folder: Path) -> None:
    async def long() -> AsyncIterator[bytes]:
        yield BODY.removesuffix(b"\r\n--edge--\r\n")
        for _ in range(100):
            yield b"x" * 65_536

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        headers = {"content-type": "multipart/form-data; boundary=edge"}
        answer = await http.post("/v1/files", content=long(), headers=headers)
    assert answer.status_code == 413
    await emptied(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("declared", "status"),
    [(len(BODY), 200), (len(BODY) - 30, 400), (LIMIT * 100, 413), (-5, 400)],
    ids=["true", "too short", "huge", "negative"],
)
async def test_the_declared_length_is_what_counts(port: int, folder: Path, declared: int, status: int) -> None:
    answer = await spoken(port, f"{HEAD}Content-Length: {declared}\r\nConnection: close\r\n\r\n".encode() + BODY)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert len(list(folder.iterdir())) == (status == 200)


async def test_an_upload_that_breaks_off_leaves_nothing(port: int, folder: Path) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{HEAD}Content-Length: 90000\r\n\r\n".encode() + BODY[:-20])
    await writer.drain()
    await until_begun(folder)
    writer.transport.abort()
    await emptied(folder)


async def spoken(port: int, said: bytes) -> bytes:
    """What the server answers to these bytes before it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def until_begun(folder: Path) -> None:
    async with asyncio.timeout(20):
        while not list(folder.iterdir()):
            await asyncio.sleep(0.01)


async def emptied(folder: Path) -> None:
    async with asyncio.timeout(20):
        while list(folder.iterdir()):
            await asyncio.sleep(0.01)
