"""Converts answers of OpenAI-protocol providers to the chat completion that OpenAI would have sent."""

import re
from collections.abc import Mapping
from typing import Any

from understudy.worker.providers.base import Answer, BadAnswer, Call
from understudy.worker.providers.completion import (
    FINISH_REASONS,
    arguments_json,
    count,
    created_at,
    made_id,
    mapping,
    parse_object,
    says_something,
    sequence,
    unfinished,
    with_code,
)
from understudy.worker.providers.known import dialect_of
from understudy.worker.providers.structured import format_of, in_format
from understudy.worker.providers.usage import openai_usage, usage_object

LEADING_THOUGHT = re.compile(r"\s*<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)


def read_answer(call: Call, headers: Mapping[str, str], content: bytes) -> Answer:
    """The chat completion in a 2xx body. Raises BadAnswer if there is none."""
    document = parse_object(content)
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadAnswer("the answer has no choices", body=document)
    wanted = count(call.body.get("n"))
    if len(choices) < wanted:
        raise BadAnswer(f"the answer has {len(choices)} choices instead of {wanted}")
    completion_id = document.get("id") or made_id("chatcmpl-", content)
    usage = openai_usage(document.get("usage"), call.model)
    completion = {
        **document,
        "id": completion_id,
        "object": "chat.completion",
        "created": document.get("created") or created_at(headers),
        "model": document.get("model") or call.model,
        "usage": usage_object(usage, mapping(document.get("usage"))),
    }
    answer = Answer(completion, usage, completion["model"], document.get("usage"), _raw_finish(choices[0]))
    try:
        completion["choices"] = [_choice(choice, index, call, completion_id) for index, choice in enumerate(choices)]
    except BadAnswer as bad:
        bad.answer = answer
        raise
    return answer


def _raw_finish(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    raw = choice.get("native_finish_reason") or choice.get("finish_reason")
    return None if raw is None else str(raw)


def _choice(raw: Any, index: int, call: Call, completion_id: str) -> dict[str, Any]:
    """One choice of an answer in OpenAI's form."""
    if not isinstance(raw, dict):
        raise BadAnswer("a choice of the answer is not an object")
    reason = _known_reason(raw)
    raw_message = raw.get("message")
    if not isinstance(raw_message, dict):
        if reason != "content_filter":
            raise BadAnswer("a choice of the answer has no message")
        raw_message = {}
    message = {key: value for key, value in raw_message.items() if says_something(value) or value == []}
    message |= {"role": "assistant", "refusal": raw_message.get("refusal") or None}
    _separate_reasoning(message, raw_message.get("content"), reason)
    tool_calls = _tool_calls(message, call, f"{completion_id}\0{index}")
    message.pop("tool_calls", None)
    if tool_calls:
        message["tool_calls"] = tool_calls
    finish = _final_reason(reason, raw, message)
    # Many servers accept `response_format` and ignore it.
    wanted = None if dialect_of(call.dialect).keeps_to_format else format_of(call.body)
    if wanted and finish == "stop" and not message["refusal"]:
        message["content"] = in_format(wanted, message["content"] or "")
    return {"logprobs": None, **raw, "index": index, "message": message, "finish_reason": finish}


def _known_reason(raw_choice: Mapping[str, Any]) -> str | None:
    """The finish reason in OpenAI's terms; None if the provider gave none."""
    raw = raw_choice.get("finish_reason")
    error = raw_choice.get("error")
    if says_something(error):
        code = error.get("code") if isinstance(error, dict) else None
        raise BadAnswer(with_code("the answer contains an error instead of a choice", code), body=raw_choice)
    if not raw:
        return None
    known = FINISH_REASONS.get(str(raw).lower())
    if known is None:
        raise unfinished(raw, raw_choice.get("native_finish_reason"))
    return known


def _final_reason(reason: str | None, raw_choice: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Some send `stop` with tool calls, some send nothing at all."""
    if "tool_calls" in message:
        return reason if reason in ("length", "content_filter") else "tool_calls"
    if "function_call" in message and reason in (None, "stop", "tool_calls"):
        return "function_call"
    if reason == "tool_calls":
        raise BadAnswer("the answer ended with tool calls, but contains none")
    if reason is None:
        # Gateways in Go send "" for absent; a broken upstream sends null, and the answer may be incomplete.
        if raw_choice.get("finish_reason") != "" or not message.get("content"):
            raise BadAnswer("the answer has no finish reason")
        return "stop"
    return reason


def _separate_reasoning(message: dict[str, Any], content: Any, reason: str | None) -> None:
    """Leaves `content` as text or null, and moves reasoning from wherever it was into `reasoning_content`."""
    thoughts = [message.pop("reasoning_content", None), message.pop("reasoning", None)]
    if isinstance(content, list):
        thoughts.append("".join(_thought_of(part) for part in content))
        content = "".join(_text_of(part) for part in content)
    if isinstance(content, str) and (thought := LEADING_THOUGHT.match(content)):
        closed = "</think>" in thought.group()
        if closed or reason == "length":
            thoughts.append(thought.group(1).strip())
            content = content[thought.end() :]
    if not any(thoughts):
        thoughts.append(_thought_in_details(message.get("reasoning_details")))
    message["content"] = content if isinstance(content, str) else None
    text = next((thought for thought in thoughts if thought and isinstance(thought, str)), None)
    if text:
        message["reasoning_content"] = text


def _tool_calls(message: dict[str, Any], call: Call, seed: str) -> list[dict[str, Any]]:
    raw_calls = sequence(message.get("tool_calls"))
    legacy = message.get("function_call")
    if legacy and not raw_calls and not call.body.get("functions"):
        raw_calls = [{"function": legacy}]
        del message["function_call"]
    return [_tool_call(raw, f"{seed}\0{position}") for position, raw in enumerate(raw_calls)]


def _tool_call(raw: Any, seed: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BadAnswer("a tool call of the answer is not an object")
    kept = {key: value for key, value in raw.items() if key != "index" and says_something(value)}
    kept["id"] = raw.get("id") or made_id("call_", seed)
    if "custom" in kept and "function" not in kept:
        return {**kept, "type": "custom"}
    function = raw.get("function")
    if not isinstance(function, dict) or not function.get("name"):
        raise BadAnswer("a tool call of the answer names no function")
    kept["type"] = raw.get("type") or "function"
    kept["function"] = {"name": function["name"], "arguments": arguments_json(function.get("arguments"))}
    return kept


def _text_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type") not in (None, "text", "output_text"):
        return ""
    return str(part.get("text") or "")


def _thought_of(part: Any) -> str:
    """The text of a thinking part: a string, or a list of text parts as Mistral sends it."""
    if not isinstance(part, dict) or part.get("type") not in ("thinking", "reasoning"):
        return ""
    thought = part.get("thinking") or part.get("reasoning") or part.get("text") or ""
    if isinstance(thought, list):
        return "".join(map(_text_of, thought))
    return str(thought)


def _thought_in_details(details: Any) -> str:
    """OpenRouter's list of reasoning blocks; encrypted ones have neither text nor summary."""
    if not isinstance(details, list):
        return ""
    return "".join(str(block.get("text") or block.get("summary") or "") for block in details if isinstance(block, dict))
