"""Amazon Bedrock's Converse API, with a Bedrock API key."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from understudy.worker.providers.base import Answer, BadAnswer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.completion import Choice, header, made_id, mapping, parse_object, sequence, string
from understudy.worker.providers.known import claude_named
from understudy.worker.providers.messages import Block, Conversation, Media, Text, ToolCall, ToolResult, Turn
from understudy.worker.providers.parameters import Parameters, Tool, ToolChoice, present
from understudy.worker.providers.structured import Format, conclude, loosened, read_request, with_answer_tool
from understudy.worker.providers.usage import bedrock_usage

FORMATS = {
    "image/jpeg": "jpeg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
"""Converse's names of media types."""

OWN_PARAMETERS = ("additionalModelRequestFields", "guardrailConfig", "performanceConfig", "requestMetadata")
"""Converse's own, passed through unchanged: a step of a chain may set them."""

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9()\[\]-]+")


class BedrockAdapter:
    protocol = "bedrock"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        conversation, parameters, wanted = read_request(call)
        wire = {
            "system": list(_blocks(conversation.system)),
            "messages": [{"role": turn.role, "content": list(_turn(turn, call.model))} for turn in conversation.turns],
            "toolConfig": _tools(call.model, conversation, parameters, wanted),
            "outputConfig": _output_config(call.model, wanted),
            "inferenceConfig": _inference(call.model, parameters),
            **{name: parameters.take(name) for name in OWN_PARAMETERS},
        }
        path = f"/model/{quote(call.model, safe='')}/converse"
        return parameters.request(self.protocol, path, endpoint.headers_with("authorization"), wire)

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        body = parse_object(content)
        blocks = mapping(mapping(body.get("output")).get("message")).get("content")
        if not isinstance(blocks, list):
            raise BadAnswer("The answer has no message.", body=body)
        choice = _read(blocks, call.model, content)
        choice.finish(body.get("stopReason"))
        return conclude(
            call,
            [choice],
            bedrock_usage(mapping(body.get("usage"))),
            headers,
            answer_id=header(headers, "x-amzn-requestid") or made_id("chatcmpl-", content),
            model=call.model,
            raw_usage=body.get("usage"),
        )


def _turn(turn: Turn, model: str) -> Iterable[dict[str, Any]]:
    """Reasoning comes first and only for its own model, tool results before other user content."""
    own = mapping(turn.extra.get("bedrock"))
    if own.get("model") == model:
        yield from ({"reasoningContent": block} for block in sequence(own.get("reasoning")))
    results = [block for block in turn.blocks if isinstance(block, ToolResult)]
    yield from _blocks(results)
    yield from _blocks(block for block in turn.blocks if not isinstance(block, ToolResult))


def _blocks(blocks: Iterable[Block]) -> Iterable[dict[str, Any]]:
    for block in blocks:
        match block:
            case Text():
                yield {"text": block.text}
            case Media():
                yield _media(block)
            case ToolCall():
                yield {"toolUse": {"toolUseId": block.id, "name": block.name, "input": block.arguments}}
            case ToolResult():
                content = list(_blocks(block.content)) or [{"text": "(nothing)"}]
                yield {"toolResult": {"toolUseId": block.id, "content": content}}
        if not isinstance(block, ToolCall) and block.cache:
            yield {"cachePoint": {"type": "default"}}


def _media(media: Media) -> dict[str, Any]:
    if media.url is not None:
        raise CannotExpress(
            f"{media.where} is an address, which Bedrock does not fetch; send the content as a data URL"
        )
    form = FORMATS.get(media.mime or "")
    if form is None:
        raise CannotExpress(f"{media.where} has a type that Bedrock does not accept")
    source = {"bytes": media.data}
    if (media.mime or "").startswith("image/"):
        return {"image": {"format": form, "source": source}}
    # Bedrock rejects other characters in names, and two documents of one name: the location makes it unique.
    stem = _NOT_IN_NAMES.sub(" ", (media.name or "").rpartition(".")[0]).strip() or "document"
    place = "-".join(re.findall(r"\d+", media.where))
    return {"document": {"format": form, "name": f"{stem} {place}", "source": source}}


def _inference(model: str, parameters: Parameters) -> dict[str, Any]:
    max_tokens, claude = parameters.max_tokens(), claude_named(model)
    if claude:
        max_tokens = min(max_tokens, claude.most_output) if max_tokens else None
        sampling, stop = claude.sampling(parameters), claude.stop(parameters)
    else:
        sampling = {name: parameters.number(name) for name in ("temperature", "top_p")}
        stop = parameters.stop()
    return present(
        {
            "maxTokens": max_tokens,
            "temperature": sampling["temperature"],
            "topP": sampling["top_p"],
            "stopSequences": stop or None,
        }
    )


def _has_own_schema_output(model: str) -> bool:
    claude = claude_named(model)
    return claude is not None and claude.refuses_forced_tools


def _output_config(model: str, wanted: Format | None) -> dict[str, Any] | None:
    """Only for models that cannot be forced to use a tool: not every model and region has it."""
    if wanted is None or wanted.schema is None or not _has_own_schema_output(model):
        return None
    schema = orjson.dumps(loosened(wanted.schema)).decode()
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"name": "answer", "schema": schema}}}}


def _tools(
    model: str, conversation: Conversation, parameters: Parameters, wanted: Format | None
) -> dict[str, Any] | None:
    tools, choice = parameters.tools()
    if wanted and wanted.schema is not None and not _has_own_schema_output(model):
        tools, choice = with_answer_tool(wanted, tools, choice)
    if not tools or choice.mode == "none":
        # Converse has no "none": tools that must not be called are not offered, which it allows only while the
        # conversation has no calls.
        if any(isinstance(block, ToolCall) for turn in conversation.turns for block in turn.blocks):
            raise CannotExpress("messages have tool calls and no tool may be called: Converse requires tools then")
        parameters.take("parallel_tool_calls")
        return None
    if claude := claude_named(model):
        claude.check_tool_choice(choice)
    if any(tool.strict for tool in tools):
        parameters.dropped.append("tools.function.strict")
    return {"tools": [{"toolSpec": _tool(tool)} for tool in tools], "toolChoice": _tool_choice(choice)}


def _tool(tool: Tool) -> dict[str, Any]:
    return present({"name": tool.name, "inputSchema": {"json": tool.schema}, "description": tool.description})


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.mode == "named":
        return {"tool": {"name": choice.name}}
    return {"any": {}} if choice.mode == "required" else {"auto": {}}


def _read(blocks: list[Any], model: str, content: bytes) -> Choice:
    """Calls that Bedrock executes itself (`server_tool_use` and their results) are left out."""
    choice = Choice()
    reasoning = []
    for index, block in enumerate(map(mapping, blocks)):
        choice.text.append(string(block.get("text")))
        cited = sequence(mapping(block.get("citationsContent")).get("content"))
        choice.text += [string(mapping(part).get("text")) for part in cited]
        if isinstance(block.get("reasoningContent"), dict):
            thought = block["reasoningContent"]
            reasoning.append(thought)
            choice.reasoning.append(string(mapping(thought.get("reasoningText")).get("text")))
        call = mapping(block.get("toolUse"))
        if call and call.get("type") != "server_tool_use":
            call_id = string(call.get("toolUseId")) or made_id("tooluse_", content, index)
            choice.call(call_id, string(call.get("name")), call.get("input"))
    if reasoning:
        choice.extra = {"bedrock": {"model": model, "reasoning": reasoning}}
    return choice
