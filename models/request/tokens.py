"""Estimates the tokens of a request before they are counted.

The limiter corrects the ratio per model from the usage that providers report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

IMAGE_TOKENS = 1_000
FILE_TOKENS = 2_000
"""Data URLs say nothing about tokens, so images and files count as typical ones."""

TYPICAL_OUTPUT_TOKENS = 500
"""Expected output of a chat completion unless its request allows less; used for reservations and forecasts."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts with one meaning for all providers: input includes cache reads and writes, output includes
    reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


def estimate_chat_tokens(body: Mapping[str, Any]) -> int:
    """Input tokens of a chat completion: one per four bytes; images and files count as typical ones."""
    size = 0
    media = 0
    for message in body.get("messages", ()):
        size += 16  # role and separators
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                text = part.get("text")
                if isinstance(text, str):
                    size += _bytes(text)
                else:
                    media += IMAGE_TOKENS if part.get("type") == "image_url" else FILE_TOKENS
        elif content:
            size += _bytes(content)
        if calls := message.get("tool_calls"):
            size += len(orjson.dumps(calls))
    for field in ("tools", "response_format"):
        if body.get(field):
            size += len(orjson.dumps(body[field]))
    return (size + 3) // 4 + media


def most_output_tokens(body: Mapping[str, Any]) -> int:
    """Maximum total tokens of all answers to a request; 0: not stated."""
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if not isinstance(most, int):
        return 0
    answers = body.get("n")
    return most * (answers if isinstance(answers, int) else 1)


def expected_output_tokens(most: int, typical: int = TYPICAL_OUTPUT_TOKENS) -> int:
    """Expected output tokens of a chat completion with this maximum; 0: not stated. `typical`: tokens of an answer that
    no maximum cuts off."""
    return min(most, typical) if most > 0 else typical


def estimate_embeddings_tokens(body: Mapping[str, Any]) -> int:
    """Input tokens of texts to be embedded: one per four bytes; token arrays count exactly."""
    given = body["input"]
    inputs = given if isinstance(given, list) else [given]
    if isinstance(inputs[0], int):
        return len(inputs)
    if isinstance(inputs[0], list):
        return sum(map(len, inputs))
    return sum((_bytes(text) + 3) // 4 for text in inputs)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
