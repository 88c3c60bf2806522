"""The HTTP application in this process, on a real ledger, with any client address that a test needs."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import httpx
from fakeredis import FakeAsyncRedis
from fastapi import APIRouter, FastAPI

from understudy.models.api_keys import Scope, new_key
from understudy.models.config.settings import Settings
from understudy.models.store import Store
from understudy.producer.api.access.admission import admit
from understudy.producer.api.access.auth import Administrator, Reader, Submitter
from understudy.producer.api.access.backlog import Backlogs
from understudy.producer.api.access.keyring import Keyring
from understudy.producer.api.app import create_app
from understudy.producer.api.context import Api, Context

ROOM = APIRouter()


@ROOM.get("/try/read")
async def may_read(caller: Reader) -> dict[str, Any]:
    return {"tenant": caller.tenant, "key": caller.key_id}


@ROOM.post("/try/submit")
async def may_submit(api: Api, caller: Submitter, jobs: int = 1) -> dict[str, Any]:
    await admit(api, caller, jobs)
    return {"tenant": caller.tenant}


@ROOM.get("/try/admin")
async def may_administer(caller: Administrator) -> dict[str, Any]:
    return {"tenant": caller.tenant}


@dataclass
class Clock:
    now: float

    def __call__(self) -> float:
        return self.now


@dataclass
class Served:
    app: Any
    context: Context

    def client(self, address: str = "127.0.0.1", url: str = "http://127.0.0.1:8080") -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app, client=(address, 5000)), base_url=url)


class _Current(AbstractAsyncContextManager[Context]):
    """The context that the application is started with this time."""

    def __init__(self, context: AbstractAsyncContextManager[Context]) -> None:
        self.context = context

    async def __aenter__(self) -> Context:
        return await self.context.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self.context.__aexit__(*error)


_spare: list[tuple[FastAPI, _Current]] = []


@contextmanager
def application(context: AbstractAsyncContextManager[Context]) -> Iterator[FastAPI]:
    """The application with this context, as `create_app` makes it, to be started and stopped once.

    Building its routes takes most of a test's time, and they keep no state, so tests share one application, one after
    the other.
    """
    app, current = _spare.pop() if _spare else _new_application(context)
    current.context = context
    try:
        yield app
    finally:
        app.dependency_overrides = {}
        _spare.append((app, current))


def _new_application(context: AbstractAsyncContextManager[Context]) -> tuple[FastAPI, _Current]:
    current = _Current(context)
    app = create_app(current)
    app.include_router(ROOM)
    return app, current


@asynccontextmanager
async def served(
    store: Store,
    clock: Callable[[], float],
    settings: Settings | None = None,
    monotonic: Callable[[], float] | None = None,
) -> AsyncIterator[Served]:
    """`monotonic`: the clock by which cached sums of the ledger expire."""
    context = Context(settings or Settings(), store, FakeAsyncRedis(), clock)
    if monotonic is not None:
        context.keyring, context.rooms = Keyring(monotonic), Backlogs(monotonic)
    with application(nullcontext(context)) as app:
        async with app.router.lifespan_context(app):
            yield Served(app, context)


async def key_for(store: Store, *scopes: Scope, tenant: str = "default", **fields: Any) -> str:
    made = new_key()
    await store.api_keys.add(made, tenant=tenant, name="test", scopes=scopes, actor="test", **fields)
    return made.text


def bearer(key: str | bytes) -> dict[str, bytes]:
    return {"Authorization": b"Bearer " + (key if isinstance(key, bytes) else key.encode())}


def walked(routes: Any) -> Iterator[Any]:
    """Each route of the application, including those of its routers."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from walked(included.routes)
        elif hasattr(route, "methods"):
            yield route
