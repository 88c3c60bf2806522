"""Callers that ask for large answers and do not read them: what waits for them on disk is bounded per tenant."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from api_help import application, bearer, key_for
from fakeredis import FakeAsyncRedis
from ledger_help import new_jobs, new_worker, succeeded

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.store import Store
from understudy.producer.api.context import Context
from understudy.producer.api.files import spooled_answers
from understudy.producer.api.files.delivery_room import MB, DeliveryRoom
from understudy.producer.server import http_protocol
from understudy.producer.server.connection_limit import ConnectionLimit
from understudy.producer.server.http_protocol import bounded

ANSWER = 12 * MB
"""More than the operating system buffers of an unread answer."""

EACH = len('{"answer":""}') + ANSWER
PATIENCE_S = 30
"""How long a busy machine may take."""


@dataclass
class Place:
    context: Context
    port: int
    acme: bytes
    rival: bytes
    results: dict[bytes, str]
    held: list[socket.socket] = field(default_factory=list)

    async def hold(self, key: bytes, times: int) -> None:
        """Ask for the large answer and read none of it."""
        said = f"GET {self.results[key]} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key.decode()}\r\n\r\n"
        for _ in range(times):
            held = socket.create_connection(("127.0.0.1", self.port))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            held.sendall(said.encode())
            self.held.append(held)

    def hang_up(self) -> None:
        for each in self.held:
            each.close()
        self.held.clear()

    async def ask(self, key: bytes) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S) as http:
            return await http.get(self.results[key], headers=bearer(key))

    def nameless_bytes(self) -> int:
        """The bytes that this process's unnamed files hold on disk."""
        found = 0
        for number in os.listdir("/proc/self/fd"):
            link = f"/proc/self/fd/{number}"
            try:
                if str(self.context.settings.data) in os.readlink(link) and "deleted" in os.readlink(link):
                    found += os.stat(link).st_size
            except FileNotFoundError:
                continue
        return found


async def answered(store: Store, tenant: str) -> str:
    """The path of the result of a job whose answer is large."""
    (job,) = await new_jobs(store, 1, tenant=tenant)
    await store.intake.accept_jobs(tenant, [job])
    worker = await new_worker(store)
    await store.claims.settle(
        worker, [succeeded(each, "x" * ANSWER) for each in await store.claims.start(worker, [job.id])]
    )
    return f"/v1/jobs/{job.id}/result"


@pytest.fixture
async def place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(spooled_answers, "WAIT_S", 0.3)
    context = Context(Settings(data=tmp_path / "data"), store, FakeAsyncRedis(), lambda: 0.0)
    context.untaken = DeliveryRoom(5 * EACH, 3 * EACH, always_one=True)
    context.untaken_in_memory = DeliveryRoom(2 * EACH, EACH, always_one=False)
    keys = [(await key_for(store, Scope.READ, tenant=tenant)).encode() for tenant in ("acme", "rival")]
    results = {key: await answered(store, tenant) for key, tenant in zip(keys, ("acme", "rival"), strict=True)}
    async with running(context) as port:
        made = Place(context, port, keys[0], keys[1], results)
        yield made
        made.hang_up()


@asynccontextmanager
async def running(context: Context) -> AsyncIterator[int]:
    with application(nullcontext(context)) as app:
        config = uvicorn.Config(app, port=0, log_level="warning", http=bounded(ConnectionLimit(100)))
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        async with asyncio.timeout(PATIENCE_S):
            while not server.started:
                await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        await serving


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not so():
            await asyncio.sleep(0.02)


async def until_taken(room: DeliveryRoom, size: int) -> None:
    await until(lambda: room.taken == size)


async def test_one_tenants_idle_readers_hold_no_more_than_it_may_and_others_are_served(place: Place) -> None:
    await place.hold(place.acme, 6)
    await until_taken(place.context.untaken, 3 * EACH)
    refused = await place.ask(place.acme)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "answers_not_taken")
    assert int(refused.headers["retry-after"]) > 0
    await until(lambda: place.nameless_bytes() == 3 * EACH)
    assert len((await place.ask(place.rival)).content) == EACH
    place.hang_up()
    await until_taken(place.context.untaken, 0)
    assert place.nameless_bytes() == 0
    assert len((await place.ask(place.acme)).content) == EACH


async def test_a_reader_that_comes_too_early_is_answered_as_soon_as_there_is_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled_answers, "WAIT_S", PATIENCE_S)
    await place.hold(place.acme, 3)
    await until_taken(place.context.untaken, 3 * EACH)
    asking = asyncio.create_task(place.ask(place.acme))
    await asyncio.wait([asking], timeout=0.5)
    assert not asking.done()
    place.hang_up()
    assert len((await asking).content) == EACH


async def test_readers_that_take_nothing_are_cut_and_give_their_room_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_S", 0.3)
    await place.hold(place.acme, 3)
    await until_taken(place.context.untaken, 3 * EACH)
    await until_taken(place.context.untaken, 0)


async def test_on_a_full_disk_no_more_is_held_in_memory_than_there_is_room_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled_answers, "is_left_to_answers", lambda *_: False)
    await place.hold(place.acme, 3)
    await until_taken(place.context.untaken_in_memory, EACH)
    refused = await place.ask(place.acme)
    assert refused.status_code in (429, 503) and int(refused.headers["retry-after"]) > 0
    assert place.nameless_bytes() == 0
    assert len((await place.ask(place.rival)).content) == EACH
    await place.hold(place.rival, 1)
    await until_taken(place.context.untaken_in_memory, 2 * EACH)
    refused = await place.ask(place.rival)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_full")
    place.hang_up()
    await until_taken(place.context.untaken_in_memory, 0)
    assert len((await place.ask(place.acme)).content) == EACH
