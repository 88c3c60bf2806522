"""OpenAI's chat completions and the many providers that support them, each with its own quirks.

A dialect is named after the provider's preset; an unknown name gets the plain dialect, which assumes as little as
possible. Answers are parsed in `answers`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from understudy.worker.providers.addresses import request_headers
from understudy.worker.providers.base import Answer, Call, CannotExpress, Endpoint, WireRequest
from understudy.worker.providers.completion import count, mapping
from understudy.worker.providers.openai.answers import read_answer

WANTS_COMPLETION_TOKENS = re.compile(r"^(?:openai/)?(?:ft:)?(?:o\d|gpt-(?:[5-9]|\d\d))")
"""OpenAI's reasoning models reject `max_tokens` with a 400 that names `max_completion_tokens`."""

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


@dataclass(frozen=True, slots=True)
class Dialect:
    """`reasoning` is the field in which an assistant message's reasoning is accepted, or None."""

    developer_role: bool = False
    both_token_limits: bool = False  # accepts max_completion_tokens as well as max_tokens
    reasoning: str | None = None
    signed_reasoning: bool = False  # accepts `reasoning_details`
    thinking_parts: bool = False  # content may be a list with thinking parts
    cannot: frozenset[str] = frozenset()  # parameters that change the meaning and are rejected or ignored
    refuses: frozenset[str] = frozenset()  # advisory parameters that would cause a 400
    renames: Mapping[str, str] | None = None
    names: bool = True  # messages may have a name


PLAIN = Dialect()
DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(developer_role=True, both_token_limits=True),
    "azure": Dialect(developer_role=True, both_token_limits=True),
    "openrouter": Dialect(developer_role=True, both_token_limits=True, reasoning="reasoning", signed_reasoning=True),
    "groq": Dialect(
        both_token_limits=True,
        reasoning="reasoning",
        cannot=frozenset({"n", "logprobs", "logit_bias"}),
        refuses=frozenset({"store", "metadata"}),
        names=False,
    ),
    "mistral": Dialect(
        thinking_parts=True,
        cannot=frozenset({"logprobs", "logit_bias"}),
        refuses=frozenset({"store", "user", "service_tier"}),
        renames={"seed": "random_seed"},
        names=False,
    ),
    "deepseek": Dialect(reasoning="reasoning_content", cannot=frozenset({"n", "json_schema"})),
    "xai": Dialect(both_token_limits=True),
    "cerebras": Dialect(both_token_limits=True, reasoning="reasoning", cannot=frozenset({"logit_bias"})),
    "perplexity": Dialect(cannot=frozenset({"n", "logprobs", "tools"})),
    "fireworks": Dialect(reasoning="reasoning_content"),
    "vllm": Dialect(both_token_limits=True, reasoning="reasoning_content"),
    "ollama": Dialect(reasoning="reasoning", cannot=frozenset({"n"})),
    "lmstudio": Dialect(cannot=frozenset({"n"})),
}


class OpenAIAdapter:
    """`Endpoint.options`: `api_version` (Azure), `organization` and `project` (OpenAI)."""

    protocol = "openai"

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        """The request. Raises CannotExpress for what the dialect is known to reject or silently ignore."""
        dialect = DIALECTS.get(call.dialect, PLAIN)
        _refuse_what_cannot_be_said(call, dialect)
        body = {key: value for key, value in call.body.items() if value is not None and key not in NEVER_SENT}
        dropped = {key for key in dialect.refuses if body.pop(key, None) is not None}
        for ours, theirs in (dialect.renames or {}).items():
            if ours in body:
                body.setdefault(theirs, body.pop(ours))
        body["model"] = call.model
        _name_the_token_limit(body, dialect, call.model)
        if isinstance(body.get("messages"), list):
            body["messages"] = [_message(message, dialect, dropped) for message in body["messages"]]
        return WireRequest(
            path_for(call, endpoint, "chat/completions"),
            headers_for(call, endpoint),
            orjson.dumps(body),
            tuple(sorted(dropped)),
        )

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        """Read a 2xx response. Raises BadAnswer."""
        return read_answer(call, headers, content)


def path_for(call: Call, endpoint: Endpoint, what: str) -> str:
    """Azure has two interfaces: one path per deployment with a dated version, and `…/openai/v1` without either."""
    if call.dialect != "azure" or endpoint.base_url.rstrip("/").endswith("/v1"):
        return f"/{what}"
    version = quote(str(endpoint.options.get("api_version") or DEFAULT_AZURE_API_VERSION), safe="")
    prefix = "" if endpoint.base_url.rstrip("/").endswith("/openai") else "/openai"
    return f"{prefix}/deployments/{quote(call.model, safe='')}/{what}?api-version={version}"


def headers_for(call: Call, endpoint: Endpoint) -> dict[str, str]:
    headers = {f"openai-{name}": str(endpoint.options[name]) for name in ACCOUNT_OPTIONS if name in endpoint.options}
    if endpoint.secret and call.dialect == "azure":
        headers["api-key"] = endpoint.secret
    elif endpoint.secret:
        headers["authorization"] = f"Bearer {endpoint.secret}"
    return request_headers(endpoint, **headers)


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
