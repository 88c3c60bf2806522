"""Embeddings in OpenAI's and Gemini's protocols, with the same checks: validated vectors in, OpenAI's list out.

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
from understudy.worker.providers.completion import count, mapping, parse_object, sequence, string
from understudy.worker.providers.gemini import model_path
from understudy.worker.providers.known import dialect_of
from understudy.worker.providers.openai import body_for, request_for
from understudy.worker.providers.parameters import Parameters, present
from understudy.worker.providers.usage import openai_usage

MOST_GEMINI_TEXTS = 100
"""Per call of `batchEmbedContents`; Google rejects more."""

GEMINI_PARAMETERS = {"taskType": "taskType", "task_type": "taskType", "title": "title"}
"""Gemini's own, passed through unchanged: a step of a chain may set them."""


class OpenAIEmbeddings:
    protocol = "openai"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        return request_for(call, endpoint, "embeddings", *body_for(call, dialect_of(call.dialect)))

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        document = parse_object(content)
        raw_usage = document.get("usage")
        # Some count only a total, which is the input: embeddings have no output tokens.
        tokens = openai_usage(raw_usage, call.model).input_tokens or count(mapping(raw_usage).get("total_tokens"))
        model = string(document.get("model")) or call.model
        return _answer(call, _in_order(document.get("data")), tokens, model=model, raw_usage=raw_usage)


def _in_order(data: Any) -> list[Any]:
    """The vectors by index. Raises BadAnswer: a vector assigned to the wrong text is worse than none."""
    if not isinstance(data, list) or not data or not all(isinstance(entry, dict) for entry in data):
        raise BadAnswer("the answer has no embeddings")
    indices = [entry.get("index", position) for position, entry in enumerate(data)]
    if any(type(index) is not int for index in indices) or sorted(indices) != list(range(len(data))):
        raise BadAnswer("the embeddings of the answer are not numbered like the inputs")
    by_index = dict(zip(indices, data, strict=True))
    return [by_index[index].get("embedding") for index in range(len(data))]


class GeminiEmbeddings:
    """`batchEmbedContents`, with one inner request per text."""

    protocol = "gemini"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        parameters = Parameters(call.body)
        texts = _gemini_texts(call)
        parameters.take("input")
        parameters.take("encoding_format")  # Gemini sends numbers; the requested encoding is produced here
        own = {theirs: parameters.take(ours) for ours, theirs in GEMINI_PARAMETERS.items() if parameters.has(ours)}
        shared = present({"outputDimensionality": parameters.take("dimensions"), **own})
        model = model_path(call.model)
        requests = [{"model": model, "content": {"parts": [{"text": text}]}, **shared} for text in texts]
        path = endpoint.versioned("v1beta", f"{model}:batchEmbedContents")
        headers = endpoint.headers_with("x-goog-api-key")
        return parameters.request(self.protocol, path, headers, {"requests": requests})

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        body = parse_object(content)
        vectors = [mapping(each).get("values") for each in sequence(body.get("embeddings"))]
        if not vectors:
            raise BadAnswer("The answer has no embeddings.")
        usage = mapping(body.get("usageMetadata")) or mapping(body.get("usage_metadata"))
        tokens = count(usage.get("promptTokenCount")) or count(usage.get("prompt_token_count"))
        return _answer(call, vectors, tokens, model=call.model, raw_usage=usage or None)


def _gemini_texts(call: Call) -> list[Any]:
    inputs = _inputs(call.body)
    if len(inputs) > MOST_GEMINI_TEXTS:
        raise CannotExpress(f"input has {len(inputs)} texts; Gemini embeds at most {MOST_GEMINI_TEXTS} at once")
    if not all(isinstance(text, str) for text in inputs):
        raise CannotExpress("input has token arrays, which belong to OpenAI's models; Gemini embeds texts")
    return inputs


def _inputs(body: Mapping[str, Any]) -> list[Any]:
    """The texts or token arrays, in whatever form they were given."""
    given = body["input"]
    is_one = isinstance(given, str) or isinstance(given[0], int)
    return [given] if is_one else list(given)


def _answer(call: Call, vectors: list[Any], input_tokens: int, *, model: str, raw_usage: Any) -> Answer:
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
    wanted = len(_inputs(call.body))
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
