"""The OpenAPI document as FastAPI derives it, with our error schema.

Invalid queries and paths are answered with 400 and OpenAI's error object, so the document says so.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.routing import Route

from understudy.models.request.wire import ErrorBody
from understudy.producer.api.bodies import DEFINITIONS
from understudy.producer.api.errors import JSON

ERROR_REF = {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}
ERROR = {"description": "Refused", "content": {"application/json": {"schema": ERROR_REF}}}
FASTAPI_SCHEMAS = ("HTTPValidationError", "ValidationError")


def document_errors(app: FastAPI) -> None:
    """Make `app.openapi` document our errors."""

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
