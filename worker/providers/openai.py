"""OpenAI's chat completions and the many providers that support them, each with its own dialect (`known`).

Answers are read in `openai_answers`.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from understudy.worker.providers.base import Answer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.completion import count, mapping
from understudy.worker.providers.known import WANTS_COMPLETION_TOKENS, Dialect, dialect_of
from understudy.worker.providers.openai_answers import read_answer

DEFAULT_AZURE_API_VERSION = "2025-04-01-preview"
"""The last dated version; earlier ones reject the parameters of reasoning models."""

ACCOUNT_OPTIONS = ("organization", "project")

NEVER_SENT = frozenset({"stream", "stream_options"})
ANSWER_ONLY = frozenset({"annotations", "extra_content"})
"""Fields of an assistant message that occur only in answers; strict providers reject them in a request."""

REASONING_TEXT = ("reasoning_content", "reasoning")
SIGNED_REASONING = ("reasoning_details", "thinking_blocks", "encrypted_content", "thought_signature")
"""Valid only at the provider that signed them."""

REASONING_PARTS = frozenset({"thinking", "redacted_thinking", "reasoning"})


class OpenAIAdapter:
    """`Endpoint.options`: `api_version` (Azure), `organization` and `project` (OpenAI)."""

    protocol = "openai"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        """The request. Raises CannotExpress for what the dialect is known to reject or silently ignore."""
        dialect = dialect_of(call.dialect)
        _refuse_what_cannot_be_said(call, dialect)
        body, dropped = body_for(call, dialect)
        _name_the_token_limit(body, dialect, call.model)
        if isinstance(body.get("messages"), list):
            body["messages"] = [_message(message, dialect, dropped) for message in body["messages"]]
        return request_for(call, endpoint, "chat/completions", body, dropped)

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        """Read a 2xx response. Raises BadAnswer."""
        return read_answer(call, headers, content)


def body_for(call: Call, dialect: Dialect) -> tuple[dict[str, Any], set[str]]:
    """The body with the dialect's names, and what it does not accept and was left out."""
    body = {key: value for key, value in call.body.items() if value is not None and key not in NEVER_SENT}
    dropped = {key for key in dialect.refuses if body.pop(key, None) is not None}
    for ours, theirs in dialect.renames.items():
        if ours in body:
            body.setdefault(theirs, body.pop(ours))
    return body | {"model": call.model}, dropped


def request_for(call: Call, endpoint: Endpoint, what: str, body: dict[str, Any], dropped: set[str]) -> WireRequest:
    is_azure = call.dialect == "azure"
    options = {f"openai-{name}": str(endpoint.options[name]) for name in ACCOUNT_OPTIONS if name in endpoint.options}
    headers = endpoint.headers_with("api-key" if is_azure else "authorization", options)
    path = _azure_path(call, endpoint, what) if is_azure else f"/{what}"
    return WireRequest(path, headers, orjson.dumps(body), tuple(sorted(dropped)))


def _azure_path(call: Call, endpoint: Endpoint, what: str) -> str:
    """Azure has two interfaces: one path per deployment with a dated version, and `…/openai/v1` without either."""
    base_url = endpoint.base_url.rstrip("/")
    if base_url.endswith("/v1"):
        return f"/{what}"
    version = quote(str(endpoint.options.get("api_version") or DEFAULT_AZURE_API_VERSION), safe="")
    prefix = "" if base_url.endswith("/openai") else "/openai"
    return f"{prefix}/deployments/{quote(call.model, safe='')}/{what}?api-version={version}"


def _refuse_what_cannot_be_said(call: Call, dialect: Dialect) -> None:
    body = call.body
    asked = {
        "n": count(body.get("n")) > 1,
        "logprobs": bool(body.get("logprobs")),
        "logit_bias": bool(body.get("logit_bias")),
        "tools": bool(body.get("tools")),
        "json_schema": mapping(body.get("response_format")).get("type") == "json_schema",
    }
    for name in sorted(dialect.cannot):
        if asked[name]:
            field = "response_format json_schema" if name == "json_schema" else name
            raise CannotExpress(f"{call.dialect} has no {field}")


def _name_the_token_limit(body: dict[str, Any], dialect: Dialect, model: str) -> None:
    """Both names mean the same; each provider accepts at least one of them, OpenAI's newer models only the new one."""
    new, old = body.get("max_completion_tokens"), body.get("max_tokens")
    if WANTS_COMPLETION_TOKENS.match(model):
        if old is not None:
            body["max_completion_tokens"] = old if new is None else new
        body.pop("max_tokens", None)
    elif new is not None and not dialect.both_token_limits:
        body["max_tokens"] = new
        del body["max_completion_tokens"]
    elif new is not None:
        body.pop("max_tokens", None)


def _message(message: Any, dialect: Dialect, dropped: set[str]) -> Any:
    if not isinstance(message, dict):
        return message
    role = message.get("role")
    if role == "assistant":
        message = _assistant_message(message, dialect, dropped)
    elif role == "developer" and not dialect.developer_role:
        message = {**message, "role": "system"}
    if "name" in message and not dialect.names and role != "tool":
        dropped.add("name")
        message = {key: value for key, value in message.items() if key != "name"}
    return message


def _assistant_message(message: dict[str, Any], dialect: Dialect, dropped: set[str]) -> dict[str, Any]:
    """An earlier turn without what only its own provider understands; null fields mean nothing, and some providers
    reject them."""
    kept = {key: value for key, value in message.items() if key == "content" or value is not None}
    for key in ANSWER_ONLY:
        kept.pop(key, None)
    if not dialect.signed_reasoning:
        dropped.update(key for key in SIGNED_REASONING if kept.pop(key, None))
    texts = [text for key in REASONING_TEXT if (text := kept.pop(key, None))]
    if texts and dialect.reasoning:
        kept[dialect.reasoning] = texts[0]
    elif texts:
        dropped.add("reasoning_content")
    if isinstance(kept.get("content"), list) and not dialect.thinking_parts:
        kept["content"] = [part for part in kept["content"] if not _is_reasoning(part)] or ""
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [_unsigned(tool_call) for tool_call in kept["tool_calls"]]
    return kept


def _is_reasoning(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in REASONING_PARTS


def _unsigned(tool_call: Any) -> Any:
    """Google's signatures are part of the tool call itself."""
    if not isinstance(tool_call, dict):
        return tool_call
    return {key: value for key, value in tool_call.items() if key not in ("extra_content", "index", *SIGNED_REASONING)}
