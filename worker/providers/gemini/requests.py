"""Requests of Google's generateContent, for the Gemini API and Vertex AI."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from understudy.worker.providers.addresses import request_headers, versioned_path
from understudy.worker.providers.base import Answer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.gemini import answers as gemini_answer
from understudy.worker.providers.messages import (
    Block,
    Conversation,
    Media,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    read_conversation,
)
from understudy.worker.providers.parameters import Parameters, Tool, ToolChoice
from understudy.worker.providers.structured import Format, read_format

MOST_STOP_SEQUENCES = 5
MOST_CANDIDATES = 8
MOST_OUTPUT = 65_536
MOST_OUTPUT_BEFORE_2_5 = 8_192

OWN_PARAMETERS = {
    "cachedContent": "cachedContent",
    "cached_content": "cachedContent",
    "safetySettings": "safetySettings",
    "safety_settings": "safetySettings",
    "labels": "labels",
}
"""Gemini's own, passed through unchanged: a step of a chain may set them."""

NO_SIGNATURE = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""What Google documents to send for a call made by another model: since Gemini 3 a call without a signature is
rejected. It is "skip_thought_signature_validator" in base64."""

THINKING_BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576}
"""`reasoning_effort` on Gemini 2.5, as translated by Google's own OpenAI interface."""

_FILE_STORES = ("gs://", "https://generativelanguage.googleapis.com/")
"""Addresses that Google fetches itself."""


class GeminiAdapter:
    protocol = "gemini"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        conversation, parameters = read_conversation(call.body), Parameters(call.body)
        wanted = read_format(parameters.take("response_format"))
        tools = _tools(parameters)
        if wanted and tools and not _is_since_3(call.model):
            raise CannotExpress(f"{call.model} rejects response_format together with tools")
        system = [{"text": text.text} for text in conversation.system]
        wire = {
            "systemInstruction": {"parts": system} if system else None,
            "contents": [_content(turn, call.model) for turn in conversation.turns],
            **tools,
            "generationConfig": _generation(call.model, parameters, wanted),
            **{theirs: parameters.take(ours) for ours, theirs in OWN_PARAMETERS.items() if parameters.has(ours)},
        }
        parameters.close(self.protocol)
        key = {"x_goog_api_key": endpoint.secret} if endpoint.secret else {}
        return WireRequest(
            path=versioned_path(endpoint.base_url, "v1beta", f"{model_path(call.model)}:generateContent"),
            headers=request_headers(endpoint, **key),
            content=orjson.dumps({name: value for name, value in wire.items() if value}),
            dropped=(*conversation.dropped, *_dropped_cache(conversation), *parameters.dropped),
        )

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        return gemini_answer.read(call, headers, content)


def model_path(model: str) -> str:
    kind, slash, name = model.partition("/")
    if not slash or kind not in ("models", "tunedModels"):
        kind, name = "models", model
    return f"{kind}/{quote(name, safe='')}"


def _is_since_3(model: str) -> bool:
    """Names without a number are aliases of the newest."""
    return not any(f"gemini-{generation}" in model for generation in ("1", "2"))


def _dropped_cache(conversation: Conversation) -> list[str]:
    blocks = [*conversation.system, *(block for turn in conversation.turns for block in turn.blocks)]
    return ["messages.cache_control"] if any(getattr(block, "cache", None) for block in blocks) else []


def _content(turn: Turn, model: str) -> dict[str, Any]:
    parts = [_part(block) for block in turn.blocks]
    calls = [part for part in parts if "functionCall" in part]
    if calls and "thoughtSignature" not in calls[0] and _is_since_3(model):
        calls[0]["thoughtSignature"] = NO_SIGNATURE
    return {"role": "model" if turn.role == "assistant" else "user", "parts": parts}


def _part(block: Block) -> dict[str, Any]:
    match block:
        case Text():
            return {"text": block.text}
        case Media():
            return _media(block)
        case ToolCall():
            wire: dict[str, Any] = {"functionCall": {"id": block.id, "name": block.name, "args": block.arguments}}
            own = block.extra.get("google")
            if isinstance(own, dict) and isinstance(own.get("thought_signature"), str):
                wire["thoughtSignature"] = own["thought_signature"]
            return wire
        case ToolResult():
            return {"functionResponse": {"id": block.id, "name": block.name, "response": _response(block)}}


def _response(result: ToolResult) -> dict[str, Any]:
    """Gemini requires an object: an object is unchanged, anything else becomes its `output`."""
    if any(isinstance(part, Media) for part in result.content):
        raise CannotExpress("messages: a tool's result with an image has no translation to Gemini")
    try:
        value = orjson.loads(result.text)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"output": result.text}


def _media(media: Media) -> dict[str, Any]:
    if media.url is not None:
        if not media.url.startswith(_FILE_STORES):
            raise CannotExpress(f"{media.where} is an address that Gemini does not fetch; send a data URL")
        return {"fileData": {"fileUri": media.url}}
    if media.mime is None:
        raise CannotExpress(f"{media.where} has an unknown format")
    return {"inlineData": {"mimeType": media.mime, "data": media.data}}


def _tools(parameters: Parameters) -> dict[str, Any]:
    tools, choice = parameters.tools()
    if not tools:
        parameters.take("parallel_tool_calls")
        return {}
    if choice.mode == "none":
        parameters.take("parallel_tool_calls")
    return {
        "tools": [{"functionDeclarations": [_declaration(tool) for tool in tools]}],
        "toolConfig": {"functionCallingConfig": _calling(choice)},
    }


def _declaration(tool: Tool) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": tool.name, "parametersJsonSchema": tool.schema}
    if tool.description:
        wire["description"] = tool.description
    return wire


def _calling(choice: ToolChoice) -> dict[str, Any]:
    if choice.mode == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": {"auto": "AUTO", "required": "ANY", "none": "NONE"}[choice.mode]}


def _generation(model: str, parameters: Parameters, wanted: Format | None) -> dict[str, Any]:
    stop = parameters.stop()
    if len(stop) > MOST_STOP_SEQUENCES:
        raise CannotExpress(f"stop has more than {MOST_STOP_SEQUENCES} sequences")
    candidates = parameters.number("n")
    if candidates is not None and candidates > MOST_CANDIDATES:
        raise CannotExpress(f"n is above {MOST_CANDIDATES}")
    most = MOST_OUTPUT if _thinks(model) else MOST_OUTPUT_BEFORE_2_5
    max_tokens = parameters.max_tokens()
    config = {
        "maxOutputTokens": min(max_tokens, most) if max_tokens else None,
        "temperature": parameters.number("temperature"),
        "topP": parameters.number("top_p"),
        "topK": parameters.number("top_k"),
        "seed": parameters.number("seed"),
        "candidateCount": candidates,
        "stopSequences": stop or None,
        "responseLogprobs": parameters.take("logprobs"),
        "logprobs": parameters.take("top_logprobs"),
        "responseMimeType": "application/json" if wanted else None,
        "responseJsonSchema": wanted.schema if wanted else None,
        "thinkingConfig": _thinking(model, parameters),
    }
    if not _thinks(model):  # later models respond 400 to penalties
        config["frequencyPenalty"] = parameters.number("frequency_penalty")
        config["presencePenalty"] = parameters.number("presence_penalty")
    return {name: value for name, value in config.items() if value is not None}


def _thinks(model: str) -> bool:
    return _is_since_3(model) or "gemini-2.5" in model


def _thinking(model: str, parameters: Parameters) -> dict[str, Any] | None:
    if not _thinks(model) or not parameters.has("reasoning_effort"):
        return None
    effort = str(parameters.take("reasoning_effort"))
    if effort not in THINKING_BUDGETS:
        raise CannotExpress("reasoning_effort must be none, minimal, low, medium or high")
    if not _is_since_3(model):
        least = 128 if "pro" in model else 0  # 2.5 Pro cannot disable thinking
        return {"thinkingBudget": max(THINKING_BUDGETS[effort], least)}
    if effort in ("none", "minimal"):
        return {"thinkingLevel": "minimal" if "flash" in model else "low"}
    return {"thinkingLevel": "high" if effort == "xhigh" else effort}
