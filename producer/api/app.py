"""The application: its routers, the context they share while the server runs, and its OpenAPI document."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from understudy.models.cancellation import running
from understudy.models.config.settings import Settings
from understudy.models.ledger_clock import ledger_clock
from understudy.models.request.wire import ErrorBody
from understudy.models.store import Store
from understudy.models.store.database.disk_space import KEPT_BYTES
from understudy.producer.api import completions, health, models, webhooks
from understudy.producer.api.access import administration
from understudy.producer.api.access.admission import kept_free
from understudy.producer.api.access.keyring import recording
from understudy.producer.api.batches import retry
from understudy.producer.api.batches import routes as batches
from understudy.producer.api.bodies import DEFINITIONS
from understudy.producer.api.context import Context
from understudy.producer.api.errors import JSON, add_error_handlers
from understudy.producer.api.files import routes as files
from understudy.producer.api.files.blobs import Blobs, open_blobs, sweep_files
from understudy.producer.api.jobs import routes as jobs
from understudy.producer.api.jobs import submission
from understudy.producer.api.middleware import DrainedRequests, SecurityHeaders, TimedRequests
from understudy.producer.ingest.batch_filler import filling
from understudy.producer.web import pages, signing_in
from understudy.producer.web.rendering import FOLDER

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    files.router,
    batches.router,
    retry.router,
    administration.router,
    models.router,
    webhooks.router,
    submission.router,
    jobs.router,
    completions.router,
    pages.router,
    signing_in.router,
)

ERROR_REF = {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}
ERROR = {"description": "Rejected", "content": {"application/json": {"schema": ERROR_REF}}}
FASTAPI_SCHEMAS = ("HTTPValidationError", "ValidationError")

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
            running(sweep_files(context), name="sweep-files"),
            context.waiters.listening(redis),
        ):
            yield context


def create_app(context: AbstractAsyncContextManager[Context]) -> FastAPI:
    """The application; `context` is entered when the server starts and left when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with context as shared, recording(shared.rejected_keys, shared.store):
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


def document_errors(app: FastAPI) -> None:
    """Make `app.openapi` document our errors: invalid queries and paths are answered with 400 and OpenAI's error
    object."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                webhooks=app.webhooks.routes,
            )
            for operations in document["webhooks"].values():
                del operations["post"]["responses"]["422"]
            for operations in document["paths"].values():
                for operation in operations.values():
                    _with_our_errors(operation["responses"])
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(DEFINITIONS)
            for name in FASTAPI_SCHEMAS:
                schemas.pop(name, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    app.router.routes.insert(0, Route("/openapi.json", _written_once(app), include_in_schema=False))


def _written_once(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """The document, serialized once, since anyone may request it at any rate."""

    @cache
    def written() -> bytes:
        return orjson.dumps(app.openapi())

    async def answer(_: Request) -> Response:
        return Response(written(), media_type=JSON)

    return answer


def _with_our_errors(responses: dict[str, Any]) -> None:
    if FASTAPI_SCHEMAS[0] in str(responses.get("422")):
        del responses["422"]
        responses.setdefault("400", ERROR)
