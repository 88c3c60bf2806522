"""Prompts and answers as plain text, for people."""

from collections.abc import Mapping
from typing import Any

import orjson

Message = tuple[str, str]
"""Role and text."""


def messages_of(body: Mapping[str, Any]) -> list[Message]:
    """The messages of a chat request, or the input of an embeddings request."""
    if "messages" not in body:
        return [("input", _text(body.get("input")))]
    return [(str(each.get("role", "")), _message_text(each)) for each in body["messages"]]


def answer_text(body: Any) -> str:
    """The text of a completion's choices; of anything else, its JSON."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()
    return "\n\n".join(_message_text(choice.get("message") or {}) for choice in choices)


def _message_text(message: Mapping[str, Any]) -> str:
    parts = [_text(message.get("content"))]
    if message.get("tool_calls"):
        parts.append(orjson.dumps(message["tool_calls"], option=orjson.OPT_INDENT_2).decode())
    return "\n".join(part for part in parts if part)


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content)
    return orjson.dumps(content).decode()


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, dict) else None
    return f"[{kind}]" if kind else orjson.dumps(part).decode()
