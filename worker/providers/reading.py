"""Parses the body of a 2xx response as JSON, however damaged it is."""

import json
from typing import Any

import orjson

from understudy.worker.providers.base import BadAnswer

SHOWN_BODY_CHARS = 2_000

ALWAYS_READ_BYTES = 1024 * 1024
MOST_VALUES_BYTES = 256 * 1024 * 1024
SIZES = {b"{": 256, b"[": 64, b",": 32}
"""Approximate memory of an object, a list and a value. Two thousand long embeddings need 200 MB."""

MOST_LENIENT_BYTES = 8 * 1024 * 1024
"""Lenient parsing takes several times the memory, and the bodies that need it are short."""


def read_object(content: bytes) -> dict[str, Any]:
    """The JSON object in the body. Raises BadAnswer for anything else, describing what it is instead."""
    if not content or content.isspace():
        raise BadAnswer("the answer is empty")
    _refuse_too_many_values(content)
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        document = _read_leniently(content)
    if isinstance(document, list) and len(document) == 1:  # Vertex AI wraps some answers in an array
        document = document[0]
    if not isinstance(document, dict):
        raise BadAnswer("the answer is JSON, but not an object", body=document)
    return document


def _refuse_too_many_values(content: bytes) -> None:
    """Raises BadAnswer for a body that would take many times its own size when parsed. Brackets and commas in its
    texts are counted, too; they are few."""
    if len(content) > ALWAYS_READ_BYTES:
        needed = sum(content.count(sign) * size for sign, size in SIZES.items())
        if needed > MOST_VALUES_BYTES:
            raise BadAnswer(
                f"reading the answer would take {needed >> 20:,} MB of memory, because it has too many values"
            )


def _read_leniently(content: bytes) -> Any:
    """For what strict parsers reject although it occurs in real answers: NaN, lone surrogates, broken UTF-8.

    The second pass ensures that the result can be serialized as JSON again.
    """
    try:
        if len(content) > MOST_LENIENT_BYTES:
            raise ValueError
        document = json.loads(content.decode(errors="replace"), parse_constant=lambda _: None)
        return orjson.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        text = content[: SHOWN_BODY_CHARS * 4].decode(errors="replace")[:SHOWN_BODY_CHARS]
        raise BadAnswer(_what_it_is(content), body=text) from None


def _what_it_is(content: bytes) -> str:
    start = content[:4096].lstrip()[:64].lower()
    if start.startswith(b"<"):
        return "the answer is a web page, not JSON"
    if start.startswith((b"data:", b"event:", b":")):
        return "the answer is an event stream, which was not requested"
    return "the answer is not valid JSON; it may be truncated"
