"""Every error response is OpenAI's error object: message, type, param, code.

The statuses and codes of our errors are drawn in `models.errors`; those of FastAPI and Starlette are converted here.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from understudy.models.errors import DEFECT, NO_HEADERS, UnderstudyError
from understudy.models.request.wire import ErrorBody, ErrorDetail
from understudy.producer.api.middleware import DATA

JSON = "application/json"
TEXT = {"schema": {"type": "string"}}
"""For `responses`: content that is not JSON."""

MOST_PATH_CHARS = 200


class ApiError(UnderstudyError):
    """An error response. `message` is one sentence without prompts or secrets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers


def json_response(document: object, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type=JSON)


def error_response(error: UnderstudyError) -> Response:
    detail = ErrorDetail(message=str(error), type=error.type, param=error.param, code=error.code)
    return json_response(ErrorBody(error=detail).model_dump(), error.status, error.headers)


def rejections(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses`: the error statuses of a route, all with the same body. A body that can be too large can also be
    too slow (408)."""
    slow = (408,) if 413 in statuses else ()
    return {status: {"model": ErrorBody} for status in (*slow, *statuses)}


NOT_SERVED = {
    "/v1/completions": "; use /v1/chat/completions",
    "/v1/responses": "; use /v1/chat/completions",
    "/v1": "; its documentation is at /docs",
}


def _way_out(app: FastAPI, path: str) -> str:
    """The end of an error message about an unknown path: the path that was probably meant, if any."""
    served = {getattr(route, "path", "") for route in app.routes} | set(app.openapi()["paths"])
    if path in NOT_SERVED:
        return NOT_SERVED[path]
    if f"/v1{path}" in served:
        return f"; use /v1{path}: the base URL ends in /v1"
    if path.rstrip("/") in served:
        return "; remove the trailing slash"
    return ""


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods of a path over all its routes: a single route knows only its own."""
    found: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            found |= {method.upper() for method in operations}
    return sorted(found)


def add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(UnderstudyError)
    async def ours(_: Request, error: UnderstudyError) -> Response:
        if error.status == DEFECT:
            raise error  # logged, and answered without its sentence
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        allowed = first.get("ctx", {}).get("expected")
        reason = f"should be {allowed}" if allowed else first["msg"].removeprefix("Input ").partition(",")[0]
        return error_response(ApiError(400, f"'{where}' {reason}", param=where, code="invalid_request"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]  # not from request.url, which contains the caller's Host
        shown = path if len(path) <= MOST_PATH_CHARS else path[: MOST_PATH_CHARS - 3] + "..."
        message = f"{request.method} {shown}: {str(error.detail).lower()}"
        if error.status_code == 404:
            message += _way_out(request.app, path)
        headers = dict(error.headers or {})
        if error.status_code == 405 and (methods := _methods(request.app, path)):
            headers["Allow"] = ", ".join(methods)
            message += f"; allowed: {headers['Allow']}"
        return error_response(ApiError(error.status_code, message, headers=headers))

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        """The client has gone; this is not a defect, and not logged as one."""
        return error_response(ApiError(400, "the body ended prematurely", code="incomplete"))

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> Response:
        """Logged by `producer.api.defects`, which also sees failures in the middle of a response."""
        headers = {name.decode(): value.decode() for name, value in DATA}  # no middleware sees this response
        message = "internal error; see the server's log"
        return error_response(ApiError(500, message, code="internal_error", headers=headers))
