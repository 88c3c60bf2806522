"""Documented alternatives to OpenAI's form of a chat completion, converted to that form.

Only unambiguous ones; anything unknown here is left to the validation of the body and to the provider.

| part | documented by | becomes |
|---|---|---|
| `{"type": "image_url", "image_url": "https://…"}` | Mistral | `"image_url": {"url": "https://…"}` |
| `{"type": "input_text", "text": …}`, `output_text` | OpenAI's Responses API | `text` |
| `{"type": "input_image", "image_url": "https://…", "detail": …}` | OpenAI's Responses API | `image_url` |
| `{"type": "image", "source": {"type": "base64", …}}`, `"url"` | Anthropic | `image_url` |
"""

from collections.abc import Callable, Mapping
from typing import Any


def canonical_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The body in OpenAI's form; the same object if nothing changed. It need not have been checked."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body
    if not any(isinstance(_content(each), list) for each in messages):
        return body
    respelt = [_message(each) for each in messages]
    return body if _same(messages, respelt) else {**body, "messages": respelt}


def _content(message: Any) -> Any:
    return message.get("content") if isinstance(message, dict) else None


def _message(message: Any) -> Any:
    content = _content(message)
    if not isinstance(content, list):
        return message
    parts = [_part(each) for each in content]
    return message if _same(content, parts) else {**message, "content": parts}


def _same(before: list[Any], after: list[Any]) -> bool:
    return all(one is other for one, other in zip(before, after, strict=True))


def _part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    respell = SPELLINGS.get(kind) if isinstance(kind, str) else None
    return part if respell is None else respell(part)


def _text(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "type": "text"}


def _image(part: dict[str, Any]) -> dict[str, Any]:
    """An image whose address is the value itself, possibly next to its `detail`."""
    url = part.get("image_url")
    if not isinstance(url, str):
        return part
    rest = {word: value for word, value in part.items() if word != "detail"}
    detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
    return {**rest, "type": "image_url", "image_url": {"url": url, **detail}}


def _sourced_image(part: dict[str, Any]) -> dict[str, Any]:
    source = part.get("source")
    if not isinstance(source, dict):
        return part
    url = source.get("url")
    if source.get("type") == "base64":
        url = f"data:{source.get('media_type')};base64,{source.get('data')}"
    if not isinstance(url, str):
        return part
    rest = {word: value for word, value in part.items() if word != "source"}
    return {**rest, "type": "image_url", "image_url": {"url": url}}


SPELLINGS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "image_url": _image,
    "input_image": _image,
    "input_text": _text,
    "output_text": _text,
    "image": _sourced_image,
}
"""By the type of the part."""
