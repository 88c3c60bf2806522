"""Converts answers of other protocols to OpenAI chat completions.

Bodies are untrusted: a field of an unexpected type counts as absent (`mapping`, `sequence`, `string`, `count`), and a
missing required field is a BadAnswer.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from understudy.models.failure import FailureClass
from understudy.worker.providers.base import Answer, BadAnswer, Usage
from understudy.worker.providers.reading import read_object


@dataclass(slots=True)
class Choice:
    """One candidate, collected block by block. `extra` is what only the provider itself can read again, under its
    name: signatures of reasoning must be returned to their provider and must not reach any other."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    refusal: str | None = None
    raw_finish: str = ""  # the provider's term
    finish_reason: str | None = None  # OpenAI's term; None: unknown or not final
    logprobs: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def call(self, call_id: str, name: str, arguments: Any, extra: dict[str, Any] | None = None) -> None:
        call: dict[str, Any] = {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments_json(arguments)},
        }
        if extra:
            call["extra_content"] = extra
        self.tool_calls.append(call)

    def as_openai(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.text) or None, "refusal": self.refusal}
        optional = {
            "reasoning_content": "".join(self.reasoning),
            "tool_calls": self.tool_calls,
            "images": self.images,
            "extra_content": self.extra,
        }
        message |= {name: value for name, value in optional.items() if value}
        return {
            "index": index,
            "message": message,
            "logprobs": self.logprobs,
            "finish_reason": self.finish_reason,
        }


def make_answer(
    choices: list[Choice],
    usage: Usage,
    *,
    answer_id: str,
    model: str,
    created: int,
    raw_usage: Any,
) -> Answer:
    completion = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice.as_openai(index) for index, choice in enumerate(choices)],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        },
    }
    return Answer(completion, usage, model, raw_usage, choices[0].raw_finish or None)


_LOAD = (
    (FailureClass.RATE_LIMIT, re.compile(r"rate_?limit|too_?many_?requests|throttl", re.IGNORECASE)),
    (
        FailureClass.OVERLOADED,
        re.compile(
            r"insufficient_?system_?resource|overload|(?:no|at|over|insufficient)_?capacity|unavailable|busy|queue_?full",
            re.IGNORECASE,
        ),
    ),
)


def class_of_finish(reason: str) -> FailureClass:
    """The failure class for an unsuccessful finish reason: an overload, if the reason says so."""
    return next((cls for cls, words in _LOAD if words.search(reason)), FailureClass.BAD_RESPONSE)


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object of a response. Raises BadAnswer for anything else, and for an error sent with a success
    status."""
    body = read_object(content)
    if body.get("error") or body.get("type") == "error":
        raise BadAnswer("The answer is an error despite its status.", body=body)
    return body


def arguments_json(arguments: Any) -> str:
    """Arguments in OpenAI's form: JSON in a string, "{}" if the model gave none."""
    if isinstance(arguments, str) and arguments.strip():
        return arguments
    return orjson.dumps(arguments or {}).decode()


def made_id(prefix: str, *seeds: str | bytes | int) -> str:
    """A deterministic id for items that came without one, so that parsing twice yields the same."""
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update((seed if isinstance(seed, bytes) else str(seed).encode(errors="surrogatepass")) + b"\0")
    return prefix + digest.hexdigest()[:24]


def header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def created_at(headers: Mapping[str, str]) -> int:
    """Unix seconds of the response by the provider's own clock, 0 if absent."""
    try:
        return int(parsedate_to_datetime(header(headers, "date") or "").timestamp())
    except ValueError:
        return 0


_MORE_THAN_ANY_COUNT = 2**40


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < _MORE_THAN_ANY_COUNT else 0
