"""Parses a call in any of the four protocols into one form.

Errors:
    Unreadable   the real provider would reject the call as malformed
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
    """The call violates its protocol. The message names the field."""


@dataclass(frozen=True, slots=True)
class Route:
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
class ReceivedCall:
    """One call for a completion, or for embeddings of `texts`.

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
    (re.compile(r"(?:/deployments/(?P<model>[^/]+))?/(?:chat/completions|(?P<embeds>embeddings))$"), "openai"),
    (re.compile(r"(?P<model>)(?P<embeds>)/messages$"), "anthropic"),
    (re.compile(r"/models/(?P<model>[^/]+):(?:generateContent|(?P<embeds>batchEmbedContents))$"), "gemini"),
    (re.compile(r"/model/(?P<model>[^/]+)/converse(?P<embeds>)$"), "bedrock"),
)


@lru_cache(maxsize=4096)
def route_of(path: str) -> Route | None:
    """The provider and protocol of a path; None if it has none."""
    provider = path.split("/", 2)[1]
    if provider in _NO_PROVIDER:
        provider = "default"
    for pattern, protocol in _PATHS:
        if found := pattern.search(path):
            return Route(provider, protocol, unquote(found["model"] or "") or None, bool(found["embeds"]))
    return None


def key_of(headers: Mapping[str, str]) -> str:
    """The credential as sent: for a signed request its access key id; "" if there is none."""
    authorization = headers.get("Authorization", "")
    if authorization.startswith("AWS4-"):
        return authorization.partition("Credential=")[2].partition("/")[0]
    if authorization[:7].lower() == "bearer ":
        return authorization[7:].strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("api-key") or ""


def read_call(route: Route, headers: Mapping[str, str], raw: bytes) -> ReceivedCall:
    """Raises Unreadable."""
    if route.protocol == "anthropic" and "anthropic-version" not in headers:
        raise Unreadable("anthropic-version: header is required")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Unreadable("the body is not JSON") from None
    if not isinstance(body, dict):
        raise Unreadable("the body is not an object")
    if body.get("stream"):
        raise Unreadable("stream is not served here")
    try:
        read = (_EMBEDDING_READERS if route.embeds else _READERS)[route.protocol]
        fields = read(body, route)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unreadable(f"the body does not have the shape of the protocol ({type(error).__name__})") from None
    model = route.model or body.get("model")
    if not isinstance(model, str):
        raise Unreadable("model is missing")
    for name in ("max_tokens", "n", "dimensions"):
        value = fields.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise Unreadable(f"{name} must be a positive integer")
    digest = sha256(fields["prompt"].encode("utf-8", "replace")).digest()
    return ReceivedCall(route.provider, route.protocol, model, key_of(headers), digest=digest, size=len(raw), **fields)


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


Body = dict[str, Any]


def _openai(body: Body, route: Route) -> dict[str, Any]:
    wanted = body.get("response_format") or {}
    schema = {"json_object": {}, "json_schema": (wanted.get("json_schema") or {}).get("schema", {})}
    choice = body.get("tool_choice") or "auto"
    functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    return {
        "prompt": _last_user_text(body.get("messages"), "content"),
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        "n": body.get("n") or 1,
        "tools": tuple(Tool(each["name"], each.get("parameters") or {}) for each in functions),
        "tool_choice": choice if isinstance(choice, str) else "=" + choice["function"]["name"],
        "schema": schema.get(wanted.get("type", "text")),
    }


def _anthropic(body: Body, route: Route) -> dict[str, Any]:
    if not isinstance(body.get("max_tokens"), int):
        raise Unreadable("max_tokens: field required")
    choice = body.get("tool_choice") or {"type": "auto"}
    named = choice["type"] == "tool"
    return {
        "prompt": _last_user_text(body.get("messages"), "content"),
        "max_tokens": body["max_tokens"],
        "tools": tuple(Tool(tool["name"], tool.get("input_schema") or {}) for tool in body.get("tools") or ()),
        "tool_choice": "=" + choice["name"] if named else choice["type"].replace("any", "required"),
        "schema": ((body.get("output_config") or {}).get("format") or {}).get("schema"),
    }


_CAPITAL = re.compile("([A-Z])")


def _snake(document: Mapping[str, Any]) -> Body:
    """Gemini accepts camelCase and snake_case alike."""
    return {_CAPITAL.sub(r"_\1", name).lower(): value for name, value in document.items()}


def _gemini(body: Body, route: Route) -> dict[str, Any]:
    body = _snake(body)
    settings = _snake(body.get("generation_config") or {})
    tools = [_snake(tool).get("function_declarations") or () for tool in body.get("tools") or ()]
    declared = [_snake(function) for functions in tools for function in functions]
    calling = _snake(_snake(body.get("tool_config") or {}).get("function_calling_config") or {})
    allowed = calling.get("allowed_function_names") or []
    mode = str(calling.get("mode", "AUTO")).lower()
    choice = ("=" + allowed[0] if len(allowed) == 1 else "required") if mode == "any" else mode
    any_object: Body | None = {} if settings.get("response_mime_type") == "application/json" else None
    schemas = (settings.get(name) for name in ("response_json_schema", "response_schema"))
    return {
        "prompt": _last_user_text(body.get("contents"), "parts"),
        "max_tokens": settings.get("max_output_tokens"),
        "n": settings.get("candidate_count") or 1,
        "tools": tuple(
            Tool(each["name"], each.get("parameters_json_schema") or each.get("parameters") or {}) for each in declared
        ),
        "tool_choice": choice,
        "schema": next((schema for schema in schemas if schema is not None), any_object),
    }


def _bedrock(body: Body, route: Route) -> dict[str, Any]:
    tools = body.get("toolConfig") or {}
    choice = tools.get("toolChoice") or {"auto": {}}
    specs = [tool["toolSpec"] for tool in tools.get("tools") or () if "toolSpec" in tool]
    named = choice.get("tool")
    return {
        "prompt": _last_user_text(body.get("messages"), "content"),
        "max_tokens": (body.get("inferenceConfig") or {}).get("maxTokens"),
        "tools": tuple(Tool(spec["name"], (spec.get("inputSchema") or {}).get("json") or {}) for spec in specs),
        "tool_choice": "=" + named["name"] if named else "required" if "any" in choice else "auto",
    }


def _openai_embeddings(body: Body, route: Route) -> dict[str, Any]:
    given = body["input"]
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise Unreadable("encoding_format must be float or base64")
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    return _embeddings(inputs, body.get("dimensions")) | {"as_base64": form == "base64"}


def _gemini_embeddings(body: Body, route: Route) -> dict[str, Any]:
    requests = body["requests"]
    if any(each["model"] != f"models/{route.model}" for each in requests):
        raise Unreadable("model must equal the one in the path in every request")
    texts = ["\n".join(part["text"] for part in each["content"]["parts"]) for each in requests]
    return _embeddings(texts, requests[0].get("outputDimensionality"))


def _embeddings(inputs: list[Any], dimensions: Any) -> dict[str, Any]:
    if not inputs or not all(inputs):
        raise Unreadable("input must have entries, none of them empty")
    texts = tuple(text if isinstance(text, str) else " ".join(map(str, text)) for text in inputs)
    return {"prompt": "\n".join(texts), "texts": texts, "dimensions": dimensions}


_READERS = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini, "bedrock": _bedrock}
_EMBEDDING_READERS = {"openai": _openai_embeddings, "gemini": _gemini_embeddings}
