"""The error of a failed job in OpenAI's form: message, type, param and code, however its provider wrote it."""

from collections.abc import Mapping
from typing import Any

import orjson

from understudy.models.errors import ERROR_TYPES
from understudy.models.objects.shapes import ErrorObject

UNEXPLAINED = "the job failed; the reason was not recorded"

MOST_MESSAGE_CHARS = 4_000


def error_object(status: int, body: Any, message: str | None = None, code: str | None = None) -> ErrorObject:
    """Convert a provider's error `body` (parsed JSON or text, of any shape); fields are text or None.

    `message` replaces the provider's own sentence; `code` is used if the provider gave none.
    """
    given = _given(body)
    usual = ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "message": _words(message) or _words(given.get("message")) or UNEXPLAINED,
        "type": _words(given.get("type")) or usual,
        "param": _words(given.get("param")),
        "code": _words(given.get("code")) or code,
    }


def _given(body: Any) -> Mapping[str, Any]:
    """The error in a body: nested as in OpenAI's form, flat, in an array, or a plain sentence."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return {"message": body}
    error = body.get("error")
    if isinstance(error, dict):
        return error
    return {"message": error, "code": body.get("code")} if error else body


def _words(value: object) -> str | None:
    """A provider's value as text."""
    if value is None or isinstance(value, str):
        return value and value[:MOST_MESSAGE_CHARS]
    if isinstance(value, bool | int | float):
        return str(value)
    return orjson.dumps(value).decode()[:MOST_MESSAGE_CHARS]
