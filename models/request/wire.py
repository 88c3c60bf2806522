"""Validation of the bodies of chat completions and embeddings, and the error objects for callers.

    RequestError    the request is wrong; `param` names the field, `code` is for programs

No message in this file repeats what a caller wrote in a prompt.
"""

import codecs
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson
from pydantic import BaseModel, ConfigDict

from understudy.models.errors import WrongUse

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longer lines are rejected. Images as data URLs take megabytes, nothing sensible takes more."""

BYTE_ORDER_MARK = codecs.BOM_UTF8

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


ONE_MESSAGE = '; for one prompt write "messages": [{"role": "user", "content": "…"}]'

MOST_INPUTS = 2_048
"""Maximum inputs of one embeddings request; OpenAI's limit."""


NOT_FOUND = "model_not_found"
NOT_ALLOWED = "model_not_allowed"
STATUSES = {NOT_FOUND: 404, NOT_ALLOWED: 403}
"""The HTTP status of a RequestError by its code; all others are 400."""


class RequestError(WrongUse, ValueError):
    """The caller's request is wrong. One sentence without prompts or secrets."""

    code: str

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = STATUSES.get(code, 400)


class ErrorDetail(BaseModel):
    """OpenAI's error: always all four fields."""

    model_config = ConfigDict(frozen=True)

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every HTTP error response."""

    model_config = ConfigDict(frozen=True)

    error: ErrorDetail

    @classmethod
    def of(cls, error: RequestError) -> "ErrorBody":
        return cls(error=ErrorDetail(message=error.message, param=error.param, code=error.code))


class LineError(BaseModel):
    """One entry of a batch's `errors.data`: `line` counts from 1."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    param: str | None = None
    line: int | None = None


def parse_line(raw: bytes, max_bytes: int = MAX_LINE_BYTES) -> dict[str, Any]:
    """Parse a line of JSON Lines (or a request body) into an object. Raises RequestError with the reason."""
    if len(raw) > max_bytes:
        raise RequestError(f"is {len(raw):,} bytes long; the limit is {max_bytes:,}", code="line_too_long")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(_why_not_json(raw, error), code="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(f"must be a JSON object, not {_name(value)}", code="invalid_json")
    return value


def write_json(document: Mapping[str, Any], *, in_order: bool = False) -> bytes:
    """`in_order`: identical bytes for equivalent documents, because callers that retry may serialize theirs again.

    Raises RequestError for content that is nested too deeply, or is not Unicode.
    """
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS if in_order else 0)
    except TypeError as error:  # it does not quote the content
        raise RequestError(f"the body cannot be written as JSON: {error}", code="invalid_json") from None


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    if not raw.strip():
        return "is empty"
    if raw.startswith(BYTE_ORDER_MARK):
        return "begins with a byte order mark; save the file as UTF-8 without it"
    if not is_utf8(raw):
        return f"is not valid JSON: it is not UTF-8 text (byte {_first_wrong(raw) + 1:,})"
    reason = error.msg.split(": line ")[0]
    return f"is not valid JSON: {reason} (column {error.colno})"


def is_utf8(raw: bytes) -> bool:
    return _first_wrong(raw) < 0


def _first_wrong(raw: bytes) -> int:
    """The offset (from 0) of the first byte that is not UTF-8; -1: none."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return -1


def check_body(body: Mapping[str, Any]) -> None:
    """Reject what no provider could answer and no adapter could read. Raises RequestError.

    Unknown fields pass: the provider judges them.
    """
    if body.get("stream"):
        raise RequestError("'stream' must be false or absent: results are polled or delivered, not streamed", "stream")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        hint = ONE_MESSAGE if isinstance(body.get("prompt", messages), str) else ""
        raise RequestError(f"'messages' must be a list with at least one message{hint}", "messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    _check_parameters(body, PARAMETERS)


def check_embeddings_body(body: Mapping[str, Any]) -> None:
    """The same for an embeddings request."""
    given = body.get("input")
    if given is None:
        _refuse("input", "is missing: a text, or a list of texts or token arrays")
    if isinstance(given, list) and not (given and _is_token(given[0])):
        _check_inputs(given)
    elif not _is_input(given):
        _refuse("input", "must be a non-empty text, or a list of texts or token arrays")
    _check_parameters(body, EMBEDDING_PARAMETERS)


def _check_inputs(inputs: list[Any]) -> None:
    if not 1 <= len(inputs) <= MOST_INPUTS:
        _refuse("input", f"must have 1 to {MOST_INPUTS:,} entries, not {len(inputs):,}")
    kind = type(inputs[0])
    for index, entry in enumerate(inputs):
        if type(entry) is not kind or not _is_input(entry):
            _refuse(f"input[{index}]", "must be a non-empty text or token array, of the same type as the other entries")


def _is_input(value: object) -> bool:
    return bool(value) and (isinstance(value, str) or (isinstance(value, list) and all(map(_is_token, value))))


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


Parameters = Mapping[str, tuple[Callable[[object], bool], str]]


def _check_parameters(body: Mapping[str, Any], parameters: Parameters) -> None:
    for field, (is_good, wanted) in parameters.items():
        value = body.get(field)
        if value is not None and not is_good(value):
            raise RequestError(f"'{field}' must be {wanted}", field)


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, dict):
        _refuse(where, "must be an object with 'role' and 'content'")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _refuse(f"{where}.role", f"must be one of {', '.join(sorted(ROLES))}")
    content = message.get("content")
    if isinstance(content, list):
        _check_parts(content, f"{where}.content")
    elif content is None:
        if role not in ("assistant", "function"):
            _refuse(f"{where}.content", "is missing")
    elif not isinstance(content, str):
        _refuse(f"{where}.content", "must be a string or a list of parts")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        _refuse(f"{where}.tool_call_id", "must be a string: the id of the call that this message answers")
    if message.get("tool_calls") is not None:
        _check_tool_calls(message["tool_calls"], f"{where}.tool_calls")


def _check_parts(parts: list[Any], where: str) -> None:
    if not parts:
        _refuse(where, "must have at least one part")
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            _refuse(f"{where}[{index}]", """must be an object with a 'type', such as {"type": "text", "text": "…"}""")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            _refuse(f"{where}[{index}].text", "must be a string")
        if part["type"] == "image_url" and not _is_image(part.get("image_url")):
            _refuse(f"{where}[{index}].image_url", "must be an object with a string 'url'")


def _is_image(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("url"), str)


def _check_tool_calls(calls: object, where: str) -> None:
    if not isinstance(calls, list):
        _refuse(where, "must be a list of objects")
    for index, call in enumerate(calls):
        if not isinstance(call, dict):
            _refuse(f"{where}[{index}]", "must be an object")
        function = call.get("function")
        if call.get("type", "function") == "function" and not (
            isinstance(function, dict)
            and isinstance(function.get("name"), str)
            and isinstance(function.get("arguments", ""), str)
        ):
            _refuse(f"{where}[{index}].function", "must have a 'name' and 'arguments' as a JSON string")


def _refuse(where: str, reason: str) -> NoReturn:
    raise RequestError(f"'{where}' {reason}", where)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_stop(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _is_typed(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _is_tool_choice(value: object) -> bool:
    return isinstance(value, str) or _is_typed(value)


PARAMETERS: Parameters = {
    "max_tokens": (_is_count, "an integer above 0"),
    "max_completion_tokens": (_is_count, "an integer above 0"),
    "n": (_is_count, "an integer above 0"),
    "temperature": (_is_number, "a number"),
    "top_p": (_is_number, "a number"),
    "frequency_penalty": (_is_number, "a number"),
    "presence_penalty": (_is_number, "a number"),
    "stop": (_is_stop, "a string or a list of strings"),
    "tools": (_is_objects, "a list of objects"),
    "tool_choice": (_is_tool_choice, "a string or an object with a 'type'"),
    "response_format": (_is_typed, "an object with a 'type'"),
}
"""Fields that adapters read: each must have the type they rely on. The provider judges ranges."""

EMBEDDING_PARAMETERS: Parameters = {
    "dimensions": (_is_count, "an integer above 0"),
    "encoding_format": (lambda value: value in ("float", "base64"), "'float' or 'base64'"),
    "user": (lambda value: isinstance(value, str), "a string"),
}


def _name(value: object) -> str:
    names = {str: "a string", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
