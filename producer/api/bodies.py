"""Reads JSON bodies: content type, size limit while they arrive, and validation."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from understudy.models.request.wire import BYTE_ORDER_MARK, RequestError, is_utf8, parse_line
from understudy.producer.api.errors import ApiError

JSON_TYPES = ("application/json",)
STALLED_S = 30.0
LEAST_BYTES = 3_000
"""Minimum bytes of a body per STALLED_S: a slower sender would occupy a connection at almost no cost."""

LONGEST_BODY_S = 120.0
MOST_NAME_CHARS = 80
"""Characters of a field's name shown in an error."""

DEFINITIONS: dict[str, Any] = {}
"""Schemas referenced by documented bodies, for the components of the OpenAPI document."""

SEND_UTF8 = "; send UTF-8: in PowerShell 5.1, use -ContentType 'application/json; charset=utf-8'"
"""PowerShell 5.1 sends text as Latin-1 by default."""

T = TypeVar("T", bound=BaseModel)


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body as an object. Raises ApiError and RequestError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in JSON_TYPES:
        raise ApiError(
            415, f"the body must be application/json, not {kind[:80] or 'without a type'}", code="content_type"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "compressed bodies are not supported; send it uncompressed", code="content_encoding")
    raw = (await read_bytes(request, max_bytes)).removeprefix(BYTE_ORDER_MARK)
    try:
        return parse_line(raw, max_bytes)
    except RequestError as error:
        remedy = "" if is_utf8(raw) else SEND_UTF8
        raise RequestError(f"the body {error.message}{remedy}", error.param, error.code) from None


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """The body; rejected with 413 as soon as it is too long, whatever its headers say."""
    parts, until = bytearray(), asyncio.get_running_loop().time() + LONGEST_BODY_S
    async for part in arriving(request):
        parts += part
        if len(parts) > max_bytes:
            raise ApiError(413, f"the body is longer than {max_bytes:,} bytes", code="body_too_large")
        if asyncio.get_running_loop().time() > until:
            raise _too_slow(f"did not arrive completely within {LONGEST_BODY_S:g} s")
    return bytes(parts)


async def arriving(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives; rejected when it stalls or drips, so that idle senders cannot occupy connections."""
    parts, loop = request.stream(), asyncio.get_running_loop()
    left_s, arrived = STALLED_S, 0
    while True:
        asked_at = loop.time()
        try:
            async with asyncio.timeout(left_s):
                part = await anext(parts, None)
        except TimeoutError:
            raise _too_slow(f"arrived at less than {LEAST_BYTES:,} bytes per {STALLED_S:g} s") from None
        if part is None:
            return
        left_s, arrived = left_s - (loop.time() - asked_at), arrived + len(part)
        if arrived >= LEAST_BYTES:
            left_s, arrived = STALLED_S, 0
        yield part


def _too_slow(what: str) -> ApiError:
    message = f"the body {what}; send the request again"
    return ApiError(408, message, code="body_too_slow", headers={"Connection": "close"})


def checked(model: type[T], document: dict[str, Any]) -> T:
    """Validate the document. Raises RequestError with the first error."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        where = ".".join(_shown(str(part)) for part in first["loc"])
        raise RequestError(f"'{where}': {message.lower()}" if where else message, where or None) from None


def _shown(part: str) -> str:
    """A field's name, truncated: it may come from the caller and be as long as a body."""
    return part if len(part) <= MOST_NAME_CHARS else part[: MOST_NAME_CHARS - 3] + "..."


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """For `openapi_extra`: documents a body that is read by hand."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    DEFINITIONS.update(schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
