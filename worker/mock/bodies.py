"""The 200 answers in the form of each protocol."""

from typing import Any

import orjson

from understudy.worker.mock.answers import Reply
from understudy.worker.mock.asked import Asked

Document = dict[str, Any]


def answer_body(asked: Asked, reply: Reply, created: int) -> Document:
    """`created` is in unix seconds; only OpenAI's protocol shows it."""
    match asked.protocol:
        case "openai":
            return _openai(asked, reply, created)
        case "anthropic":
            return _anthropic(asked, reply)
        case "gemini":
            return _gemini(asked, reply)
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


def _openai(asked: Asked, reply: Reply, created: int) -> Document:
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": "chat.completion",
        "created": created,
        "model": asked.model,
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
        call = reply.tool_call
        function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
        message.update(
            content=None,
            tool_calls=[{"id": f"call_{call.id}{index or ''}", "type": "function", "function": function}],
        )
    return message


def _anthropic(asked: Asked, reply: Reply) -> Document:
    content: list[Document] = [{"type": "text", "text": reply.texts[0]}]
    if reply.tool_call:
        call = reply.tool_call
        content = [{"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": call.arguments}]
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refusal": "refusal"}
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
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


def _gemini(asked: Asked, reply: Reply) -> Document:
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
        "modelVersion": asked.model,
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
        call = reply.tool_call
        content = {"toolUse": {"toolUseId": f"tooluse_{call.id}", "name": call.name, "input": call.arguments}}
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
