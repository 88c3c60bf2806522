"""Generated clients get types: the OpenAPI document describes the content of every successful response."""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute

from understudy.producer.api.app import ROUTERS, create_app
from understudy.producer.api.context import Context
from understudy.producer.web import pages, signing_in

PAGES = (pages.router, signing_in.router)
"""HTML, for people."""

NO_SERVER = cast(AbstractAsyncContextManager[Context], nullcontext())
DOCUMENT = create_app(NO_SERVER).openapi()

SUCCESSES = [
    pytest.param(response, id=f"{method} {path} {status}")
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    for status, response in operation["responses"].items()
    if status.startswith("2")
]


def models_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The models of a response: one, or several of which it is any."""
    names = [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema])]
    return [DOCUMENT["components"]["schemas"][name] for name in names]


@pytest.mark.parametrize("response", SUCCESSES)
def test_a_successful_response_has_a_model_or_is_text(response: dict[str, Any]) -> None:
    content = response["content"]
    assert content
    for kind, described in content.items():
        if kind == "application/json":
            assert all(model["properties"] for model in models_of(described["schema"]))
        elif kind != "text/event-stream":  # for which OpenAPI 3.1 has no schema
            assert described["schema"]["type"] == "string"


def test_every_route_is_in_the_document() -> None:
    served = {
        (cast(APIRoute, route).path_format, method.lower())
        for router in ROUTERS
        if router not in PAGES
        for route in router.routes
        for method in cast(APIRoute, route).methods
    }
    assert served == {(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations}
