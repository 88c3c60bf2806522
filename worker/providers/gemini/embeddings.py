"""Embeddings of the Gemini API: `batchEmbedContents`, with one inner request per text."""

from collections.abc import Mapping
from typing import Any

import orjson

from understudy.worker.providers.addresses import request_headers, versioned_path
from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.completion import count, mapping, parse_object, sequence
from understudy.worker.providers.embeddings import inputs_of, make_answer
from understudy.worker.providers.gemini.requests import model_path
from understudy.worker.providers.parameters import Parameters

MOST_TEXTS = 100
"""Per call; Google rejects more."""

OWN_PARAMETERS = {"taskType": "taskType", "task_type": "taskType", "title": "title"}
"""Gemini's own, passed through unchanged: a step of a chain may set them."""


class GeminiEmbeddings:
    protocol = "gemini"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        parameters = Parameters(call.body)
        texts = _texts(call)
        parameters.take("input")
        parameters.take("encoding_format")  # Gemini sends numbers; the requested encoding is produced here
        shared = {"outputDimensionality": parameters.take("dimensions")}
        shared |= {theirs: parameters.take(ours) for ours, theirs in OWN_PARAMETERS.items() if parameters.has(ours)}
        shared = {name: value for name, value in shared.items() if value is not None}
        parameters.close(self.protocol)
        path = model_path(call.model)
        requests = [{"model": path, "content": {"parts": [{"text": text}]}, **shared} for text in texts]
        key = {"x_goog_api_key": endpoint.secret} if endpoint.secret else {}
        return WireRequest(
            path=versioned_path(endpoint.base_url, "v1beta", f"{path}:batchEmbedContents"),
            headers=request_headers(endpoint, **key),
            content=orjson.dumps({"requests": requests}),
            dropped=tuple(parameters.dropped),
        )

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        body = parse_object(content)
        vectors = [mapping(each).get("values") for each in sequence(body.get("embeddings"))]
        if not vectors:
            raise BadAnswer("The answer has no embeddings.")
        usage = mapping(body.get("usageMetadata")) or mapping(body.get("usage_metadata"))
        tokens = count(usage.get("promptTokenCount")) or count(usage.get("prompt_token_count"))
        return make_answer(call, vectors, tokens, model=call.model, raw_usage=usage or None)


def _texts(call: Call) -> list[Any]:
    inputs = inputs_of(call.body)
    if len(inputs) > MOST_TEXTS:
        raise CannotExpress(f"input has {len(inputs)} texts; Gemini embeds at most {MOST_TEXTS} at once")
    if not all(isinstance(text, str) for text in inputs):
        raise CannotExpress("input has token arrays, which belong to OpenAI's models; Gemini embeds texts")
    return inputs
