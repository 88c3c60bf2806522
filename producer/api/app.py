"""The application: its routers, and the context they share while the server runs."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis
from starlette.staticfiles import StaticFiles

from understudy.models.config.settings import Settings
from understudy.models.ledger_clock import ledger_clock
from understudy.models.store import Store
from understudy.models.store.database.disk_space import KEPT_BYTES
from understudy.producer.api import webhooks
from understudy.producer.api.access import admin, providers, tenant
from understudy.producer.api.access.quotas import kept_free
from understudy.producer.api.access.refused_keys import recording
from understudy.producer.api.batches import retry as retrying
from understudy.producer.api.batches import routes as batches
from understudy.producer.api.completions import chat, embeddings, models
from understudy.producer.api.context import Context
from understudy.producer.api.early_refusals import DrainedRequests
from understudy.producer.api.errors import add_error_handlers
from understudy.producer.api.files import routes as files
from understudy.producer.api.files.blobs import Blobs, open_blobs
from understudy.producer.api.files.sweep import sweeping
from understudy.producer.api.jobs import attempts
from understudy.producer.api.jobs import routes as jobs
from understudy.producer.api.monitoring import health
from understudy.producer.api.monitoring.metrics import TimedRequests
from understudy.producer.api.openapi_document import document_errors
from understudy.producer.api.security_headers import SecurityHeaders
from understudy.producer.ingest.batch_filler import filling
from understudy.producer.web import pages, signing_in
from understudy.producer.web.rendering import FOLDER

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
    pages.router,
    signing_in.router,
)

REDIS_TIMEOUT_S = 2.0


def open_context(settings: Settings, store: Store, redis_url: str) -> AbstractAsyncContextManager[Context]:
    """The context shared by all requests. Raises SettingsError."""
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
        title="Understudy",
        version=version("understudy"),
        lifespan=lifespan,
        webhooks=webhooks.events,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(TimedRequests)
    app.add_middleware(DrainedRequests)
    app.add_middleware(SecurityHeaders)
    add_error_handlers(app)
    document_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"))
    return app
