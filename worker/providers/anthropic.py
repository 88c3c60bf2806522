"""Anthropic's Messages API."""

import base64
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.completion import Choice, made_id, mapping, parse_object, sequence, string
from understudy.worker.providers.known import Claude
from understudy.worker.providers.messages import Block, Media, Text, ToolCall, ToolResult, Turn
from understudy.worker.providers.parameters import Parameters, Tool, ToolChoice, present
from understudy.worker.providers.structured import Format, conclude, loosened, read_request, with_answer_tool
from understudy.worker.providers.usage import anthropic_usage

VERSION = "2023-06-01"

DEFAULT_MAX_TOKENS = 16_384
"""Anthropic requires a limit where OpenAI has none. A longer answer would exceed the default timeout of a call."""

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

OWN_PARAMETERS = ("cache_control", "container", "inference_geo", "mcp_servers", "thinking", "top_k")
"""Anthropic's own, passed through unchanged: a step of a chain may set them."""

THINKING = ("thinking", "redacted_thinking")


class AnthropicAdapter:
    protocol = "anthropic"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        conversation, parameters, wanted = read_request(call)
        model = Claude(call.model)
        wire = {
            "model": call.model,
            "max_tokens": min(parameters.max_tokens() or DEFAULT_MAX_TOKENS, model.most_output),
            "system": [_block(text) for text in conversation.system],
            "messages": [_message(turn, call.model) for turn in conversation.turns],
            **_tools(model, parameters, wanted),
            "output_config": _output_config(model, parameters, wanted),
            **model.sampling(parameters, thinking=_thinks(call.body)),
            "stop_sequences": model.stop(parameters),
            **{name: parameters.take(name) for name in OWN_PARAMETERS},
        }
        headers = endpoint.headers_with("x-api-key", {"anthropic-version": VERSION})
        return parameters.request(self.protocol, endpoint.versioned("v1", "messages"), headers, wire)

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        body = parse_object(content)
        blocks = body.get("content")
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        if not isinstance(blocks, list):
            raise BadAnswer("The answer has no content.", body=body)
        choice = _read(blocks, content)
        if thinking := _leading_thinking(blocks):
            choice.extra = {"anthropic": {"model": call.model, "thinking": thinking}}
        choice.finish(body.get("stop_reason"))
        if choice.raw_finish == "refusal":
            choice.refusal = string(mapping(body.get("stop_details")).get("explanation")) or None
        if body.get("amazon-bedrock-guardrailAction") == "INTERVENED":
            choice.finish_reason = "content_filter"
        return conclude(
            call,
            [choice],
            anthropic_usage(mapping(body.get("usage"))),
            headers,
            answer_id=string(body.get("id")) or made_id("msg_", content),
            model=string(body.get("model")) or call.model,
            raw_usage=body.get("usage"),
        )


def _thinks(body: Mapping[str, Any]) -> bool:
    return mapping(body.get("thinking")).get("type") in ("enabled", "adaptive")


def _output_config(model: Claude, parameters: Parameters, wanted: Format | None) -> dict[str, Any]:
    has_schema = wanted is not None and wanted.schema is not None and model.has_schema_output
    return present(
        {
            "format": {"type": "json_schema", "schema": loosened(wanted.schema)} if wanted and has_schema else None,
            "effort": model.effort(parameters.take("reasoning_effort")) if model.has_effort else None,
        }
    )


def _message(turn: Turn, model: str) -> dict[str, Any]:
    """In the turn after calls, tool results must come first; in the assistant's turn, thinking must come first."""
    results = [_block(block) for block in turn.blocks if isinstance(block, ToolResult)]
    others = [_block(block) for block in turn.blocks if not isinstance(block, ToolResult)]
    return {"role": turn.role, "content": _thinking(turn, model) + results + others}


def _thinking(turn: Turn, model: str) -> list[Any]:
    """Signed thinking is valid only for the model that produced it."""
    own = mapping(turn.extra.get("anthropic"))
    blocks = sequence(own.get("thinking")) if own.get("model") == model else []
    return [block for block in blocks if mapping(block).get("type") in THINKING]


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            wire: dict[str, Any] = {"type": "text", "text": block.text}
        case Media():
            wire = _media(block)
        case ToolCall():
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}
        case ToolResult():
            wire = {"type": "tool_result", "tool_use_id": block.id, "content": [_block(part) for part in block.content]}
    if block.cache:
        wire["cache_control"] = block.cache
    return wire


def _media(media: Media) -> dict[str, Any]:
    if media.kind == "audio":
        raise CannotExpress(f"{media.where} is audio, which Anthropic does not accept")
    kind = "image" if media.kind == "image" or media.mime in IMAGE_TYPES else "document"
    named = {"title": media.name} if media.name and kind == "document" else {}
    return {"type": kind, "source": _source(media, kind), **named}


def _source(media: Media, kind: str) -> dict[str, Any]:
    if media.url is not None:
        if not media.url.startswith("https://"):
            raise CannotExpress(f"{media.where} is not an https address, which Anthropic requires")
        return {"type": "url", "url": media.url}
    if kind == "image" and media.mime not in IMAGE_TYPES:
        raise CannotExpress(f"{media.where} is not a JPEG, PNG, GIF or WebP image")
    if kind == "document" and (media.mime or "").startswith("text/"):
        text = base64.b64decode(media.data or "").decode(errors="replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    if kind == "document" and media.mime != "application/pdf":
        raise CannotExpress(f"{media.where} is neither a PDF nor text")
    return {"type": "base64", "media_type": media.mime, "data": media.data}


def _tools(model: Claude, parameters: Parameters, wanted: Format | None) -> dict[str, Any]:
    tools, choice = parameters.tools()
    if wanted and wanted.schema is not None and not model.has_schema_output:
        tools, choice = with_answer_tool(wanted, tools, choice)
    parallel = parameters.take("parallel_tool_calls")
    if not tools:
        return {}
    model.check_tool_choice(choice)
    wire_choice = _tool_choice(choice)
    if parallel is False and choice.mode != "none":
        wire_choice["disable_parallel_tool_use"] = True
    if any(tool.strict for tool in tools) and not model.has_schema_output:
        parameters.dropped.append("tools.function.strict")
    return {"tools": [_tool(tool, model) for tool in tools], "tool_choice": wire_choice}


def _tool(tool: Tool, model: Claude) -> dict[str, Any]:
    strict = tool.strict and model.has_schema_output
    schema = loosened(tool.schema) if strict else tool.schema
    wire = {"name": tool.name, "input_schema": schema, "description": tool.description, "strict": strict or None}
    return present(wire)


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.mode == "named":
        return {"type": "tool", "name": choice.name}
    return {"type": "any" if choice.mode == "required" else choice.mode}


def _read(blocks: list[Any], content: bytes) -> Choice:
    """Calls that Anthropic executes itself (`server_tool_use`, `mcp_tool_use` and their results) are left out."""
    choice = Choice()
    for index, block in enumerate(map(mapping, blocks)):
        match block.get("type"):
            case "text":
                choice.text.append(string(block.get("text")))
            case "thinking":
                choice.reasoning.append(string(block.get("thinking")))
            case "tool_use":
                call_id = string(block.get("id")) or made_id("toolu_", content, index)
                choice.call(call_id, string(block.get("name")), block.get("input"))
    return choice


def _leading_thinking(blocks: list[Any]) -> list[Any]:
    """Thinking that can be restored in place: thinking between texts loses its position in a chat completion."""
    return list(takewhile(lambda block: mapping(block).get("type") in THINKING, blocks))
