"""Parses a request of any of the four protocols into one form.

Errors:
    Unreadable   the real provider would reject the request as malformed
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import unquote

import orjson

Protocol = Literal["openai", "anthropic", "gemini", "bedrock"]

_NO_PROVIDER = {"v1", "v1beta", "openai", "model"}


class Unreadable(Exception):
    """The request violates its protocol. The message names the field."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the path alone determines. `model` None: it is in the body."""

    provider: str
    protocol: Protocol
    model: str | None = None
    embeds: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a completion, or for embeddings of `texts`.

    `tool_choice`: none, auto, required, or "=" and the name of the tool.
    """

    provider: str
    protocol: Protocol
    model: str
    key: str
    prompt: str  # text of the last user message
    digest: bytes  # sha256 of it
    size: int  # bytes of the body
    max_tokens: int | None = None
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    schema: Mapping[str, Any] | None = None  # the schema of the requested JSON; {} for any object
    texts: tuple[str, ...] = ()
    dimensions: int | None = None
    as_base64: bool = False

    @property
    def input_tokens(self) -> int:
        """Estimated as usual: four bytes per token."""
        return max(self.size // 4, 1)


_PATHS: tuple[tuple[re.Pattern[str], Protocol], ...] = (
    (re.compile(r"/deployments/([^/]+)/chat/completions$"), "openai"),
    (re.compile(r"/chat/completions$"), "openai"),
    (re.compile(r"/deployments/([^/]+)/embeddings$"), "openai"),
    (re.compile(r"/embeddings$"), "openai"),
    (re.compile(r"/messages$"), "anthropic"),
    (re.compile(r"/models/([^/]+):generateContent$"), "gemini"),
    (re.compile(r"/models/([^/]+):batchEmbedContents$"), "gemini"),
    (re.compile(r"/model/([^/]+)/converse$"), "bedrock"),
)

EMBEDDING_PATHS = ("/embeddings", ":batchEmbedContents")


@lru_cache(maxsize=4096)
def target(path: str) -> Target | None:
    """The provider and protocol of a path; None if it has none."""
    provider = path.split("/", 2)[1]
    if provider in _NO_PROVIDER:
        provider = "default"
    for pattern, protocol in _PATHS:
        found = pattern.search(path)
        if found:
            model = unquote(found[1]) if pattern.groups else None
            return Target(provider, protocol, model, path.endswith(EMBEDDING_PATHS))
    return None


def key_of(headers: Mapping[str, str]) -> str:
    """The credential as sent: for a signed request its access key id; "" if there is none."""
    authorization = headers.get("Authorization", "")
    if authorization.startswith("AWS4-"):
        return authorization.partition("Credential=")[2].partition("/")[0]
    if authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key") or ""


def read(to: Target, headers: Mapping[str, str], raw: bytes) -> Asked:
    """Raises Unreadable."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Unreadable("the body is not JSON") from None
    if not isinstance(body, dict):
        raise Unreadable("the body is not an object")
    try:
        readers = _EMBEDDING_READERS if to.embeds else _READERS
        return readers[to.protocol](to, headers, raw, body)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"the body does not have the shape of the protocol ({type(error).__name__})") from None


def _asked(to: Target, headers: Mapping[str, str], raw: bytes, model: Any, prompt: str, **rest: Any) -> Asked:
    if not isinstance(model, str) or not model:
        raise Unreadable("model is missing")
    for name in ("max_tokens", "n", "dimensions"):
        value = rest.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise Unreadable(f"{name} must be a positive integer")
    digest = sha256(prompt.encode("utf-8", "replace")).digest()
    return Asked(to.provider, to.protocol, model, key_of(headers), prompt, digest, len(raw), **rest)


def _last_user_text(messages: Any, content: str) -> str:
    if not isinstance(messages, list) or not messages:
        raise Unreadable("there are no messages")
    for message in reversed(messages):
        if message.get("role", "user") == "user":
            parts = message[content]
            if isinstance(parts, str):
                return parts
            return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return ""


def _openai(to: Target, headers: Mapping[str, str], raw: bytes, body: dict[str, Any]) -> Asked:
    if body.get("stream"):
        raise Unreadable("stream is not served here")
    wanted = body.get("response_format") or {}
    schema = {"json_object": {}, "json_schema": (wanted.get("json_schema") or {}).get("schema", {})}
    choice = body.get("tool_choice") or "auto"
    return _asked(
        to,
        headers,
        raw,
        body.get("model") or to.model,
        _last_user_text(body.get("messages"), "content"),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        n=body.get("n") or 1,
        tools=tuple(
            Tool(tool["function"]["name"], tool["function"].get("parameters") or {})
            for tool in body.get("tools") or ()
            if "function" in tool
        ),
        tool_choice=choice if isinstance(choice, str) else "=" + choice["function"]["name"],
        schema=schema.get(wanted.get("type", "text")),
    )


def _anthropic(to: Target, headers: Mapping[str, str], raw: bytes, body: dict[str, Any]) -> Asked:
    if "anthropic-version" not in headers:
        raise Unreadable("anthropic-version: header is required")
    if not isinstance(body.get("max_tokens"), int):
        raise Unreadable("max_tokens: field required")
    if body.get("stream"):
        raise Unreadable("stream is not served here")
    choice = body.get("tool_choice") or {"type": "auto"}
    return _asked(
        to,
        headers,
        raw,
        body.get("model"),
        _last_user_text(body.get("messages"), "content"),
        max_tokens=body["max_tokens"],
        tools=tuple(Tool(tool["name"], tool.get("input_schema") or {}) for tool in body.get("tools") or ()),
        tool_choice="=" + choice["name"] if choice["type"] == "tool" else choice["type"].replace("any", "required"),
        schema=((body.get("output_config") or {}).get("format") or {}).get("schema"),
    )


def _either(document: Mapping[str, Any], *names: str) -> Any:
    """Gemini accepts camelCase and snake_case alike."""
    return next((document[name] for name in names if document.get(name) is not None), None)


def _gemini(to: Target, headers: Mapping[str, str], raw: bytes, body: dict[str, Any]) -> Asked:
    settings = _either(body, "generationConfig", "generation_config") or {}
    declared = [
        function
        for tool in body.get("tools") or ()
        for function in _either(tool, "functionDeclarations", "function_declarations") or ()
    ]
    calling = _either(
        _either(body, "toolConfig", "tool_config") or {}, "functionCallingConfig", "function_calling_config"
    )
    allowed = _either(calling or {}, "allowedFunctionNames", "allowed_function_names") or []
    mode = str((calling or {}).get("mode", "AUTO")).lower()
    choice = ("=" + allowed[0] if len(allowed) == 1 else "required") if mode == "any" else mode
    schema = _either(settings, "responseJsonSchema", "response_json_schema", "responseSchema", "response_schema")
    mime = _either(settings, "responseMimeType", "response_mime_type")
    return _asked(
        to,
        headers,
        raw,
        to.model,
        _last_user_text(body.get("contents"), "parts"),
        max_tokens=_either(settings, "maxOutputTokens", "max_output_tokens"),
        n=_either(settings, "candidateCount", "candidate_count") or 1,
        tools=tuple(
            Tool(each["name"], _either(each, "parametersJsonSchema", "parameters_json_schema", "parameters") or {})
            for each in declared
        ),
        tool_choice=choice,
        schema=schema if schema is not None else ({} if mime == "application/json" else None),
    )


def _bedrock(to: Target, headers: Mapping[str, str], raw: bytes, body: dict[str, Any]) -> Asked:
    tools = body.get("toolConfig") or {}
    choice = tools.get("toolChoice") or {"auto": {}}
    specs = [tool["toolSpec"] for tool in tools.get("tools") or () if "toolSpec" in tool]
    named = choice.get("tool")
    return _asked(
        to,
        headers,
        raw,
        to.model,
        _last_user_text(body.get("messages"), "content"),
        max_tokens=(body.get("inferenceConfig") or {}).get("maxTokens"),
        tools=tuple(Tool(spec["name"], (spec.get("inputSchema") or {}).get("json") or {}) for spec in specs),
        tool_choice="=" + named["name"] if named else "required" if "any" in choice else "auto",
    )


_READERS = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini, "bedrock": _bedrock}


def _openai_embeddings(to: Target, headers: Mapping[str, str], raw: bytes, body: dict[str, Any]) -> Asked:
    given = body["input"]
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Unreadable("encoding_format must be float or base64")
    return _embed(to, headers, raw, body.get("model") or to.model, inputs, body.get("dimensions"), form == "base64")


def _gemini_embeddings(to: Target, headers: Mapping[str, str], raw: bytes, body: dict[str, Any]) -> Asked:
    requests = body["requests"]
    if any(each["model"] != f"models/{to.model}" for each in requests):
        raise Unreadable("model must equal the one in the path in every request")
    texts = ["\n".join(part["text"] for part in each["content"]["parts"]) for each in requests]
    return _embed(to, headers, raw, to.model, texts, requests[0].get("outputDimensionality"))


def _embed(
    to: Target,
    headers: Mapping[str, str],
    raw: bytes,
    model: Any,
    inputs: list[Any],
    dimensions: Any,
    as_base64: bool = False,
) -> Asked:
    if not inputs or not all(inputs):
        raise Unreadable("input must have entries, none of them empty")
    texts = tuple(text if isinstance(text, str) else " ".join(map(str, text)) for text in inputs)
    prompt = "\n".join(texts)
    return _asked(to, headers, raw, model, prompt, texts=texts, dimensions=dimensions, as_base64=as_base64)


_EMBEDDING_READERS = {"openai": _openai_embeddings, "gemini": _gemini_embeddings}
