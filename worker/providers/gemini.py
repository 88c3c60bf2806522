"""Requests of Google's generateContent, for the Gemini API and Vertex AI."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from understudy.worker.providers import gemini_answers
from understudy.worker.providers.base import Answer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.known import Gemini
from understudy.worker.providers.messages import Block, Conversation, Media, Text, ToolCall, ToolResult, Turn
from understudy.worker.providers.parameters import Parameters, Tool, ToolChoice, present
from understudy.worker.providers.structured import Format, read_request

MOST_STOP_SEQUENCES = 5
MOST_CANDIDATES = 8

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

_FILE_STORES = ("gs://", "https://generativelanguage.googleapis.com/")
"""Addresses that Google fetches itself."""


class GeminiAdapter:
    protocol = "gemini"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        conversation, parameters, wanted = read_request(call, has_json_mode=True)
        _drop_cache(conversation, parameters)
        model = Gemini(call.model)
        tools = _tools(parameters)
        if wanted and tools and not model.is_since_3:
            raise CannotExpress(f"{call.model} rejects response_format together with tools")
        system = [{"text": text.text} for text in conversation.system]
        wire = {
            "systemInstruction": {"parts": system} if system else None,
            "contents": [_content(turn, model) for turn in conversation.turns],
            **tools,
            "generationConfig": _generation(model, parameters, wanted),
            **{theirs: parameters.take(ours) for ours, theirs in OWN_PARAMETERS.items() if parameters.has(ours)},
        }
        path = endpoint.versioned("v1beta", f"{model_path(call.model)}:generateContent")
        return parameters.request(self.protocol, path, endpoint.headers_with("x-goog-api-key"), wire)

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        return gemini_answers.read(call, headers, content)


def model_path(model: str) -> str:
    kind, slash, name = model.partition("/")
    if not slash or kind not in ("models", "tunedModels"):
        kind, name = "models", model
    return f"{kind}/{quote(name, safe='')}"


def _drop_cache(conversation: Conversation, parameters: Parameters) -> None:
    blocks = [*conversation.system, *(block for turn in conversation.turns for block in turn.blocks)]
    if any(getattr(block, "cache", None) for block in blocks):
        parameters.dropped.append("messages.cache_control")


def _content(turn: Turn, model: Gemini) -> dict[str, Any]:
    parts = [_part(block) for block in turn.blocks]
    calls = [part for part in parts if "functionCall" in part]
    if calls and "thoughtSignature" not in calls[0] and model.is_since_3:
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
    if not tools or choice.mode == "none":
        parameters.take("parallel_tool_calls")
    if not tools:
        return {}
    return {
        "tools": [{"functionDeclarations": [_declaration(tool) for tool in tools]}],
        "toolConfig": {"functionCallingConfig": _calling(choice)},
    }


def _declaration(tool: Tool) -> dict[str, Any]:
    return present({"name": tool.name, "parametersJsonSchema": tool.schema, "description": tool.description})


def _calling(choice: ToolChoice) -> dict[str, Any]:
    if choice.mode == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": {"auto": "AUTO", "required": "ANY", "none": "NONE"}[choice.mode]}


def _generation(model: Gemini, parameters: Parameters, wanted: Format | None) -> dict[str, Any]:
    stop = parameters.stop()
    if len(stop) > MOST_STOP_SEQUENCES:
        raise CannotExpress(f"stop has more than {MOST_STOP_SEQUENCES} sequences")
    candidates = parameters.number("n")
    if candidates is not None and candidates > MOST_CANDIDATES:
        raise CannotExpress(f"n is above {MOST_CANDIDATES}")
    max_tokens = parameters.max_tokens()
    config = {
        "maxOutputTokens": min(max_tokens, model.most_output) if max_tokens else None,
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
    }
    if not model.thinks:  # later models respond 400 to penalties
        config["frequencyPenalty"] = parameters.number("frequency_penalty")
        config["presencePenalty"] = parameters.number("presence_penalty")
    elif parameters.has("reasoning_effort"):
        config["thinkingConfig"] = model.thinking(str(parameters.take("reasoning_effort")))
    return present(config)
