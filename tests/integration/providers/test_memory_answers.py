"""Large answers wait on disk until a worker has room for them, and keep their room until the ledger has them."""

import asyncio
from pathlib import Path
from typing import IO

import pytest
from aiohttp import web
from test_provider_client import REQUEST, a_provider

from understudy.models.memory_room import Headroom
from understudy.worker.job.memory import place_in
from understudy.worker.providers import client as client_module
from understudy.worker.providers.client import ProviderClient

MB = 1024 * 1024
LARGE = bytes(range(256)) * 8 * 1024  # 2 MB


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "HELD_BYTES", 100_000)


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=LARGE)


async def small(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=b"{}")


async def test_a_large_answer_is_whole_and_leaves_nothing_on_disk(tmp_path: Path) -> None:
    async with a_provider(answer) as provider, ProviderClient(10, tmp_path / "data") as client:
        for _ in range(3):
            _, _, content = await client.send(REQUEST, provider.endpoint, 30.0)
            assert content == LARGE
        assert client._held.bytes == 0
    assert not list((tmp_path / "data").iterdir())


async def test_what_fits_into_memory_goes_to_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "HELD_BYTES", 8 * MB)
    async with a_provider(answer) as provider, ProviderClient(10, tmp_path / "data") as client:
        _, _, content = await client.send(REQUEST, provider.endpoint, 30.0)
        assert content == LARGE and client._held.bytes == 0
    assert not (tmp_path / "data").exists()


async def test_one_job_after_the_other_has_room_until_it_has_ended(tmp_path: Path) -> None:
    room, holding = Headroom(3 * MB), 0
    came, done = asyncio.Queue[int](), asyncio.Event()

    async def job(client: ProviderClient, endpoint: object, number: int) -> None:
        nonlocal holding
        with place_in(room):
            _, _, content = await client.send(REQUEST, endpoint, 30.0)  # type: ignore[arg-type]
            assert content == LARGE
            holding += 1
            assert holding == 1
            came.put_nowait(number)
            await done.wait()  # the ledger does not accept it
            holding -= 1

    async with a_provider(answer) as provider, ProviderClient(10, tmp_path) as client:
        jobs = [asyncio.create_task(job(client, provider.endpoint, number)) for number in range(5)]
        await asyncio.wait_for(came.get(), 30)
        assert came.empty()
        done.set()
        await asyncio.wait_for(asyncio.gather(*jobs), 30)
    assert came.qsize() == 4


async def test_two_answers_of_one_job_wait_for_no_room_of_each_other(tmp_path: Path) -> None:
    room = Headroom(MB)
    async with a_provider(answer) as provider, ProviderClient(10, tmp_path) as client:
        with place_in(room):
            both = [client.send(REQUEST, provider.endpoint, 30.0) for _ in range(2)]
            answers = await asyncio.wait_for(asyncio.gather(*both), 30)
        assert [content for _, _, content in answers] == [LARGE, LARGE]
        await asyncio.wait_for(room.take(MB), 5)  # none of it is left


async def test_a_small_answer_needs_no_room(tmp_path: Path) -> None:
    room = Headroom(MB)
    await room.take(MB)
    async with a_provider(small) as provider, ProviderClient(10, tmp_path) as client:
        with place_in(room):
            _, _, content = await asyncio.wait_for(client.send(REQUEST, provider.endpoint, 30.0), 30)
    assert content == b"{}"


async def test_who_is_stopped_while_it_waits_for_room_gives_nothing_back_that_it_had_not(tmp_path: Path) -> None:
    room = Headroom(MB)
    await room.take(MB)

    async def job(client: ProviderClient, endpoint: object) -> None:
        with place_in(room):
            await client.send(REQUEST, endpoint, 30.0)  # type: ignore[arg-type]

    async with a_provider(answer) as provider, ProviderClient(10, tmp_path) as client:
        waiting = asyncio.create_task(job(client, provider.endpoint))
        async with asyncio.timeout(30):
            while not room._waiting:
                await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
    room.give(MB)
    await asyncio.wait_for(room.take(MB), 5)
    assert room._taken == MB


async def test_a_full_disk_costs_memory_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def full(file: IO[bytes], part: bytes) -> None:
        nonlocal written
        written += 1
        if written > 3:
            real(file, part[:100])
            raise OSError(28, "No space left on device")
        real(file, part)

    real = client_module.append
    monkeypatch.setattr(client_module, "append", full)
    async with a_provider(answer) as provider, ProviderClient(10, tmp_path) as client:
        _, _, content = await client.send(REQUEST, provider.endpoint, 30.0)
    assert content == LARGE and written > 3


async def test_of_a_refusal_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=429, body=b"no " * 10 * MB)

    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", MB)
    async with a_provider(refuse) as provider, ProviderClient(10, tmp_path) as client:
        status, _, content = await client.send(REQUEST, provider.endpoint, 30.0)
    assert status == 429 and client_module.MAX_ERROR_BYTES < len(content) < MB
