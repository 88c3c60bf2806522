"""OpenAI's embeddings, and those of the providers that support its protocol."""

from collections.abc import Mapping
from typing import Any

import orjson

from understudy.worker.providers.base import Answer, BadAnswer, Call, Endpoint, WireRequest
from understudy.worker.providers.completion import count
from understudy.worker.providers.embeddings import make_answer
from understudy.worker.providers.openai.answers import refuse_errors
from understudy.worker.providers.openai.requests import DIALECTS, PLAIN, headers_for, path_for
from understudy.worker.providers.openai.usage import read_usage
from understudy.worker.providers.reading import read_object

RENAMES: Mapping[str, Mapping[str, str]] = {"mistral": {"dimensions": "output_dimension"}}
"""By dialect: OpenAI's field and theirs."""


class OpenAIEmbeddings:
    protocol = "openai"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        dialect = DIALECTS.get(call.dialect, PLAIN)
        body = {name: value for name, value in call.body.items() if value is not None}
        dropped = sorted(name for name in dialect.refuses if body.pop(name, None) is not None)
        for ours, theirs in RENAMES.get(call.dialect, {}).items():
            if ours in body:
                body[theirs] = body.pop(ours)
        body["model"] = call.model
        path = path_for(call, endpoint, "embeddings")
        return WireRequest(path, headers_for(call, endpoint), orjson.dumps(body), tuple(dropped))

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        document = read_object(content)
        refuse_errors(document)
        raw_usage = document.get("usage")
        tokens = read_usage(raw_usage, call).input_tokens or _total(raw_usage)
        model = document.get("model")
        return make_answer(
            call,
            _in_order(document.get("data")),
            tokens,
            model=model if isinstance(model, str) and model else call.model,
            raw_usage=raw_usage,
        )


def _total(usage: Any) -> int:
    """Some count only a total, which is the input: embeddings have no output tokens."""
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return count(total)


def _in_order(data: Any) -> list[Any]:
    """The vectors by index. Raises BadAnswer: a vector assigned to the wrong text is worse than none."""
    if not isinstance(data, list) or not data or not all(isinstance(entry, dict) for entry in data):
        raise BadAnswer("the answer has no embeddings")
    indices = [entry.get("index", position) for position, entry in enumerate(data)]
    if any(type(index) is not int for index in indices) or sorted(indices) != list(range(len(data))):
        raise BadAnswer("the embeddings of the answer are not numbered like the inputs")
    by_index = dict(zip(indices, data, strict=True))
    return [by_index[index].get("embedding") for index in range(len(data))]
