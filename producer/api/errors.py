"""Every error that a caller gets is OpenAI's error object: message, type, param, code.

ApiError        a refusal with a status of its own
RequestError    the request is wrong (400), or names a model that nobody has (404) or its tenant may not use (403)
UnknownId       there is no such object, or it is another tenant's (404)
StoreError      the ledger is away or busy (503, with Retry-After)
BlobError       a file is too long (413), empty (400), gone (404), or its storage is away or full (503)
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
"""The status of a wrong request by its code; all others are 400."""

BLOB_ERRORS = ((TooLarge, 413, "file_too_large"), (Empty, 400, "file_empty"), (NoBlob, 404, "not_found"))


class ApiError(Exception):
    """A refusal. `message` is one sentence without prompts or secrets."""

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
    """For `responses`: the statuses with which a route may refuse, all with the same body. What can be too long can
    also be too slow."""
    slow = (408,) if 413 in statuses else ()
    return {status: {"model": ErrorBody} for status in (*slow, *statuses)}


NOT_SERVED = {
    "/v1/completions": "; use /v1/chat/completions",
    "/v1/responses": "; use /v1/chat/completions",
    "/": "; the API begins at /v1, its documentation is at /docs",
}


def _way_out(app: FastAPI, path: str) -> str:
    """The end of a sentence about a path that is none: what was meant, when that can be told."""
    served = {getattr(route, "path", "") for route in app.routes} | set(app.openapi()["paths"])
    if path in NOT_SERVED:
        return NOT_SERVED[path]
    if f"/v1{path}" in served:
        return f"; it is /v1{path}: the base URL ends in /v1"
    if path.rstrip("/") in served:
        return "; leave out the slash at the end"
    return ""


def _methods(app: FastAPI, path: str) -> list[str]:
    """What a path may be asked, by all of its routes: a single route knows its own methods only."""
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
        path = request.scope["path"]  # a URL may not be made of the caller's Host
        shown = path if len(path) <= MOST_PATH_CHARS else path[: MOST_PATH_CHARS - 3] + "..."
        message = f"{request.method} {shown}: {str(error.detail).lower()}"
        if error.status_code == 404:
            message += _way_out(request.app, path)
        headers = dict(error.headers or {})
        if error.status_code == 405 and (methods := _methods(request.app, path)):
            headers["Allow"] = ", ".join(methods)
            message += f"; it takes {headers['Allow']}"
        return error_response(ApiError(error.status_code, message, headers=headers))

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        """Nobody reads it; it is no defect, and not logged as one."""
        return error_response(ApiError(400, "the body broke off before its end", code="incomplete"))

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> Response:
        """What it was is logged by `producer.api.defects`, which also sees what breaks an answer off."""
        headers = {name.decode(): value.decode() for name, value in DATA}  # no middleware sees this answer
        message = "internal error; the server's log says where"
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
