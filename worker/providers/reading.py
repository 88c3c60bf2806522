"""Reading the body of a 2xx response as JSON, however damaged it is."""

import json
from typing import Any

import orjson

from understudy.worker.providers.base import BadAnswer

SHOWN_BODY_CHARS = 2_000

ALWAYS_READ_BYTES = 1024 * 1024
MOST_VALUES_BYTES = 256 * 1024 * 1024
SIZES = {b"{": 256, b"[": 64, b",": 32}
"""What an object, a list and a value take in memory, about. Two thousand long embeddings need 200 MB."""

MOST_LENIENT_BYTES = 8 * 1024 * 1024
"""Reading leniently takes several times the memory, and what calls for it is short."""


def read_object(content: bytes) -> dict[str, Any]:
    """The JSON object that the body is. Raises BadAnswer for anything else, saying what it is instead."""
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
        raise BadAnswer("the answer is JSON, but no object", body=document)
    return document


def _refuse_too_many_values(content: bytes) -> None:
    """Raises BadAnswer for what would take many times its own size when it is read. Brackets and commas of its texts
    are counted, too, which are few."""
    if len(content) > ALWAYS_READ_BYTES:
        needed = sum(content.count(sign) * size for sign, size in SIZES.items())
        if needed > MOST_VALUES_BYTES:
            raise BadAnswer(f"the answer has so many values that reading it takes {needed >> 20:,} MB of memory")


def _read_leniently(content: bytes) -> Any:
    """For what strict parsers refuse though it is there in real answers: NaN, lone surrogates, broken UTF-8.

    The second pass makes sure that whatever is returned can be written as JSON again.
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
        return "the answer is an event stream, though none was asked for"
    return "the answer is not valid JSON; it may have been cut off"
