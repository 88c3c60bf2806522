"""The 200 answers in the form of each protocol."""

import base64
import math
import struct
from hashlib import shake_128
from typing import Any

import orjson

from understudy.worker.mock.answers import Reply
from understudy.worker.mock.calls import ReceivedCall

Document = dict[str, Any]

DIMENSIONS = 8
"""If the request does not say; enough to distinguish texts, and short enough to read."""


def answer_body(call: ReceivedCall, reply: Reply, created: int) -> Document:
    """`created` is in unix seconds; only OpenAI's protocol shows it."""
    match call.protocol:
        case "openai":
            return _openai(call, reply, created)
        case "anthropic":
            return _anthropic(call, reply)
        case "gemini":
            return _gemini(call, reply)
        case "bedrock":
            return _bedrock(reply)


def model_list(protocol: str, models: tuple[str, ...], created: int) -> Document:
    if protocol == "gemini":
        return {
            "models": [{"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]} for name in models]
        }
    if protocol == "anthropic":
        data = [{"type": "model", "id": name, "display_name": name} for name in models]
        return (
            {"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]} if models else {"data": []}
        )
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": created, "owned_by": "mock"} for name in models],
    }


def _openai(call: ReceivedCall, reply: Reply, created: int) -> Document:
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion",
        "created": created,
        "model": call.model,
        "choices": [
            {
                "index": index,
                "message": _openai_message(reply, index, text),
                "logprobs": None,
                "finish_reason": "stop" if reply.finish == "refusal" else reply.finish,
            }
            for index, text in enumerate(reply.texts)
        ],
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
            "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        },
        "system_fingerprint": "fp_mock",
    }


def _openai_message(reply: Reply, index: int, text: str) -> Document:
    message: Document = {"role": "assistant", "content": text, "refusal": None}
    if reply.finish == "refusal":
        message.update(content=None, refusal=text)
    if reply.tool_call:
        function = {"name": reply.tool_call.name, "arguments": orjson.dumps(reply.tool_call.arguments).decode()}
        message.update(
            content=None,
            tool_calls=[{"id": f"call_{reply.tool_call.id}{index or ''}", "type": "function", "function": function}],
        )
    return message


def _anthropic(call: ReceivedCall, reply: Reply) -> Document:
    content: list[Document] = [{"type": "text", "text": reply.texts[0]}]
    if reply.tool_call:
        tool = reply.tool_call
        content = [{"type": "tool_use", "id": f"toolu_{tool.id}", "name": tool.name, "input": tool.arguments}]
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal"}
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": content,
        "stop_reason": reasons[reply.finish],
        "stop_sequence": None,
        "usage": {
            "input_tokens": reply.input_tokens - reply.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": reply.cached_tokens,
            "output_tokens": reply.output_tokens,
        },
    }


def _gemini(call: ReceivedCall, reply: Reply) -> Document:
    usage = {
        "promptTokenCount": reply.input_tokens,
        "candidatesTokenCount": reply.output_tokens - reply.reasoning_tokens,
        "totalTokenCount": reply.input_tokens + reply.output_tokens,
    }
    if reply.cached_tokens:
        usage["cachedContentTokenCount"] = reply.cached_tokens
    if reply.reasoning_tokens:
        usage["thoughtsTokenCount"] = reply.reasoning_tokens
    return {
        "candidates": [_candidate(reply, index, text) for index, text in enumerate(reply.texts)],
        "usageMetadata": usage,
        "modelVersion": call.model,
        "responseId": reply.id,
    }


def _candidate(reply: Reply, index: int, text: str) -> Document:
    if reply.finish == "refusal":
        return {"content": {}, "finishReason": "SAFETY", "index": index}
    part: Document = {"text": text}
    if reply.tool_call:
        part = {"functionCall": {"name": reply.tool_call.name, "args": reply.tool_call.arguments}}
    # Gemini says STOP with a function call, too.
    reason = "MAX_TOKENS" if reply.finish == "length" else "STOP"
    return {"content": {"role": "model", "parts": [part]}, "finishReason": reason, "index": index}


def _bedrock(reply: Reply) -> Document:
    content: Document = {"text": reply.texts[0]}
    if reply.tool_call:
        tool = reply.tool_call
        content = {"toolUse": {"toolUseId": f"tooluse_{tool.id}", "name": tool.name, "input": tool.arguments}}
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "content_filtered"}
    return {
        "output": {"message": {"role": "assistant", "content": [content]}},
        "stopReason": reasons[reply.finish],
        "usage": {
            "inputTokens": reply.input_tokens - reply.cached_tokens,
            "outputTokens": reply.output_tokens,
            "totalTokens": reply.input_tokens + reply.output_tokens,
            "cacheReadInputTokens": reply.cached_tokens,
        },
        "metrics": {"latencyMs": 1},
    }


def vector(text: str, dimensions: int) -> list[float]:
    """Each text has its own vector of length 1, the same at every provider and in every run."""
    raw = shake_128(text.encode("utf-8", "replace")).digest(4 * dimensions)
    numbers = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", raw)]
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def embeddings_body(call: ReceivedCall) -> dict[str, Any]:
    """The answer in the form of OpenAI's protocol or of Gemini's, which counts no tokens."""
    vectors = [vector(text, call.dimensions or DIMENSIONS) for text in call.texts]
    if call.protocol == "gemini":
        return {"embeddings": [{"values": each} for each in vectors]}
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(each) if call.as_base64 else each}
        for index, each in enumerate(vectors)
    ]
    usage = {"prompt_tokens": call.input_tokens, "total_tokens": call.input_tokens}
    return {"object": "list", "data": data, "model": call.model, "usage": usage}


def _base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
