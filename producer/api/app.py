"""The application: its routers in one list, and what they share for as long as the server runs."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis

from models.ledger_clock import ledger_clock
from models.settings import Settings
from models.store import Store
from models.store.room import KEPT_BYTES
from producer.api import (
    admin,
    attempts,
    batches,
    chat,
    embeddings,
    files,
    health,
    jobs,
    models,
    providers,
    retrying,
    tenant,
    webhooks,
)
from producer.api.blobs import Blobs, open_blobs
from producer.api.context import Context
from producer.api.documented import document_errors
from producer.api.draining import DrainedRequests
from producer.api.errors import add_error_handlers
from producer.api.metrics import TimedRequests
from producer.api.quotas import kept_free
from producer.api.refused_keys import recording
from producer.api.security_headers import SecurityHeaders
from producer.api.sweeping import sweeping
from producer.filling import filling

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    files.router,
    batches.router,
    retrying.router,
    admin.router,
    tenant.router,
    models.router,
    providers.router,
    webhooks.router,
    jobs.router,
    attempts.router,
    chat.router,
    embeddings.router,
)

REDIS_TIMEOUT_S = 2.0


def open_context(settings: Settings, store: Store, redis_url: str) -> AbstractAsyncContextManager[Context]:
    """What requests share. Raises SettingsError."""
    return _opened(settings, store, redis_url, open_blobs(settings))


@asynccontextmanager
async def _opened(settings: Settings, store: Store, redis_url: str, blobs: Blobs) -> AsyncIterator[Context]:
    async with (
        Redis.from_url(redis_url, socket_connect_timeout=REDIS_TIMEOUT_S, socket_timeout=REDIS_TIMEOUT_S) as redis,
        ledger_clock(store) as clock,
    ):
        context, kept_bytes = Context(settings, store, redis, clock, blobs), max(KEPT_BYTES, kept_free(settings))
        async with (
            filling(settings, store, blobs.read, context.writer, kept_bytes) as context.fill_soon,
            sweeping(context),
            context.waiters.listening(redis),
        ):
            yield context


def create_app(context: AbstractAsyncContextManager[Context]) -> FastAPI:
    """The application; `context` is entered when the server starts and left when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with context as shared, recording(shared.refused_keys, shared.store):
            app.state.context = shared
            yield

    app = FastAPIOffline(
        title="Understudy", version=version("understudy"), lifespan=lifespan, redoc_url=None, redirect_slashes=False
    )
    app.add_middleware(TimedRequests)
    app.add_middleware(DrainedRequests)
    app.add_middleware(SecurityHeaders)
    add_error_handlers(app)
    document_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
