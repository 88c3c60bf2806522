"""Shared by embeddings in all protocols: validated vectors in, OpenAI's list out.

A short, missing or non-numeric vector silently corrupts an index: such an answer is rejected.
"""

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Mapping
from typing import Any

from understudy.models.request.tokens import estimate_embeddings_tokens
from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, Usage, WireRequest


class NoEmbeddings:
    """For a protocol without embeddings."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        raise CannotExpress(f"the {self.protocol} protocol has no embeddings")

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        raise BadAnswer(f"the {self.protocol} protocol has no embeddings")


def inputs_of(body: Mapping[str, Any]) -> list[Any]:
    """The texts or token arrays, in whatever form they were given."""
    given = body["input"]
    is_one = isinstance(given, str) or isinstance(given[0], int)
    return [given] if is_one else list(given)


def make_answer(call: Call, vectors: list[Any], input_tokens: int, *, model: str, raw_usage: Any) -> Answer:
    """`vectors` in the order of the inputs, as numbers or as base64, returned in the requested form.

    Raises BadAnswer. If the provider does not count tokens (`input_tokens` 0), our estimate is used; `raw_usage` shows
    that there was no count.
    """
    tokens = input_tokens or estimate_embeddings_tokens(call.body)
    usage = Usage(input_tokens=tokens)
    document: dict[str, Any] = {
        "object": "list",
        "data": [],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    answer = Answer(document, usage, model, raw_usage)
    wanted = len(inputs_of(call.body))
    if len(vectors) != wanted:
        raise BadAnswer(f"the answer has {len(vectors)} embeddings instead of {wanted}", answer=answer)
    try:
        numbers = [_numbers(vector) for vector in vectors]
    except (TypeError, ValueError, OverflowError, binascii.Error):
        raise BadAnswer("an embedding of the answer is not a list of numbers", answer=answer) from None
    _check_lengths(numbers, call.body.get("dimensions"), answer)
    as_base64 = call.body.get("encoding_format") == "base64"
    document["data"] = [
        {"object": "embedding", "index": index, "embedding": _base64(given) if as_base64 else given.tolist()}
        for index, given in enumerate(numbers)
    ]
    return answer


def _numbers(vector: Any) -> "array[float]":
    """Raises TypeError, ValueError, OverflowError, binascii.Error."""
    if isinstance(vector, str):
        numbers = array("f", base64.b64decode(vector, validate=True))
        if sys.byteorder == "big":
            numbers.byteswap()
    elif isinstance(vector, list):
        numbers = array("d", vector)
    else:
        raise TypeError
    if not math.isfinite(sum(numbers)):  # a non-finite number makes the sum non-finite
        raise ValueError
    return numbers


def _check_lengths(vectors: list["array[float]"], dimensions: Any, answer: Answer) -> None:
    lengths = set(map(len, vectors))
    if 0 in lengths:
        raise BadAnswer("an embedding of the answer is empty", answer=answer)
    if len(lengths) > 1:
        raise BadAnswer("the embeddings of the answer differ in length", answer=answer)
    if dimensions is not None and lengths != {dimensions}:
        raise BadAnswer(f"the embeddings have {min(lengths)} dimensions instead of {dimensions}", answer=answer)


def _base64(numbers: "array[float]") -> str:
    """In OpenAI's form: 32-bit little-endian floats."""
    singles = array("f", numbers)
    if sys.byteorder == "big":
        singles.byteswap()
    return base64.b64encode(singles.tobytes()).decode()
