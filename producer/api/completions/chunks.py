"""Splits a complete answer into the chunks of a stream, which OpenAI's clients reassemble."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

PIECE_CHARS = 200
KEEP_ALIVE = b": the job is under way\n\n"
DONE = b"data: [DONE]\n\n"

_OF_ALL = ("id", "created", "model", "system_fingerprint", "service_tier")


def event(data: Mapping[str, Any]) -> bytes:
    """One event of the stream."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def chunks(completion: Mapping[str, Any], include_usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks in order."""
    base = {name: completion[name] for name in _OF_ALL if name in completion} | {"object": "chat.completion.chunk"}
    if include_usage:
        base["usage"] = None
    for choice in completion.get("choices") or []:
        index = choice.get("index", 0)
        for delta in _deltas(choice.get("message") or {}):
            yield {**base, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]}
        ending = {"logprobs": choice.get("logprobs"), "finish_reason": choice.get("finish_reason")}
        yield {**base, "choices": [{"index": index, "delta": {}, **ending}]}
    if include_usage:
        yield {**base, "choices": [], "usage": completion.get("usage")}


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    text, refusal, calls = message.get("content"), message.get("refusal"), message.get("tool_calls")
    rest = {name: value for name, value in message.items() if name not in ("content", "refusal", "tool_calls")}
    yield {"role": "assistant", **rest, "content": "" if text is not None else None}
    yield from ({"content": piece} for piece in _pieces(text))
    yield from ({"refusal": piece} for piece in _pieces(refusal))
    if calls:
        yield {"tool_calls": [{**call, "index": number} for number, call in enumerate(calls)]}


def _pieces(text: str | None) -> Iterator[str]:
    for start in range(0, len(text or ""), PIECE_CHARS):
        yield (text or "")[start : start + PIECE_CHARS]
