"""Every error response is OpenAI's error object: message, type, param, code.

ApiError        an error with its own status
RequestError    the request is invalid (400), or its model is unknown (404) or not allowed for its tenant (403)
UnknownId       there is no such object, or it belongs to another tenant (404)
StoreError      the ledger is unreachable or busy (503, with Retry-After)
BlobError       a file is too large (413), empty (400) or gone (404), or its storage is unreachable or full (503)
"""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from understudy.models.request.wire import ERROR_TYPES, ErrorBody, ErrorDetail, RequestError
from understudy.models.routing.allowlist import NOT_ALLOWED
from understudy.models.routing.model_names import NOT_FOUND
from understudy.models.schemas.process import NoJudge
from understudy.models.store import StoreConflict, StoreError
from understudy.producer.api.files.blobs import BlobError, Empty, NoBlob, TooLarge
from understudy.producer.api.security_headers import DATA
from understudy.producer.ledger import UnknownId

JSON = "application/json"
OUTAGE_RETRY_S = 5
MOST_PATH_CHARS = 200

REQUEST_ERRORS = {NOT_FOUND: 404, NOT_ALLOWED: 403}
"""The status of an invalid request by its code; all others are 400."""

BLOB_ERRORS = ((TooLarge, 413, "file_too_large"), (Empty, 400, "file_empty"), (NoBlob, 404, "not_found"))


class ApiError(Exception):
    """An error response. `message` is one sentence without prompts or secrets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def error_response(error: ApiError) -> Response:
    detail = ErrorDetail(
        message=error.message,
        type=ERROR_TYPES.get(error.status, "invalid_request_error"),
        param=error.param,
        code=error.code,
    )
    content = orjson.dumps(ErrorBody(error=detail).model_dump())
    return Response(content, error.status, error.headers, media_type=JSON)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses`: the error statuses of a route, all with the same body. A body that can be too large can also be
    too slow (408)."""
    slow = (408,) if 413 in statuses else ()
    return {status: {"model": ErrorBody} for status in (*slow, *statuses)}


NOT_SERVED = {
    "/v1/completions": "; use /v1/chat/completions",
    "/v1/responses": "; use /v1/chat/completions",
    "/": "; the API is under /v1, its documentation at /docs",
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
    _add_outages(app)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(RequestError)
    async def wrong(_: Request, error: RequestError) -> Response:
        status = REQUEST_ERRORS.get(error.code, 400)
        return error_response(ApiError(status, error.message, param=error.param, code=error.code))

    @app.exception_handler(UnknownId)
    async def unknown(_: Request, error: UnknownId) -> Response:
        return error_response(ApiError(404, str(error), code="not_found"))

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


def _add_outages(app: FastAPI) -> None:
    @app.exception_handler(StoreError)
    async def ledger(_: Request, error: StoreError) -> Response:
        if isinstance(error, StoreConflict):
            return error_response(ApiError(409, str(error), code="conflict"))
        return _unavailable(str(error))

    @app.exception_handler(NoJudge)
    async def no_judge(_: Request, error: NoJudge) -> Response:
        return _unavailable(str(error))

    @app.exception_handler(BlobError)
    async def storage(_: Request, error: BlobError) -> Response:
        for kind, status, code in BLOB_ERRORS:
            if isinstance(error, kind):
                return error_response(ApiError(status, str(error), param="file", code=code))
        return _unavailable(str(error))


def _unavailable(message: str) -> Response:
    headers = {"Retry-After": str(OUTAGE_RETRY_S)}
    return error_response(ApiError(503, message, code="unavailable", headers=headers))
