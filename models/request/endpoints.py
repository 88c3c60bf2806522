"""What is required of a request, per endpoint, and other documented forms of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from understudy.models.config.catalog import kind_of
from understudy.models.config.settings import Settings
from understudy.models.request.tokens import estimate_chat_tokens, estimate_embeddings_tokens
from understudy.models.request.wire import RequestError, check_body, check_embeddings_body
from understudy.models.routing.chain import CHAT, EMBEDDINGS, Endpoint, Step

NO_EMBEDDINGS = frozenset({"anthropic", "bedrock"})
"""Protocols without embeddings."""

SAME_WEIGHTS = re.compile(r"(?::(?:latest|free|nitro|floor|extended)|@(?:latest|default))$")
"""Suffixes of a model name that do not change its vectors. Numbers, sizes and dates are not among them: wrongly
rejecting a chain costs a line of configuration, while wrongly mixing vectors silently corrupts an index."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of one endpoint. `check` and `check_steps` raise RequestError; `estimate_tokens` expects a checked body.

    `canonical` converts an unchecked body to OpenAI's form. `needs` is the field that every body of this endpoint has.
    `check_steps` gets the steps of a chain, and whether its configuration requires models of one family (None:
    unspecified).
    """

    needs: str
    canonical: Callable[[dict[str, Any]], dict[str, Any]]
    check: Callable[[Mapping[str, Any]], None]
    estimate_tokens: Callable[[Mapping[str, Any]], int]
    check_steps: Callable[[Settings, tuple[Step, ...], bool | None], None]


def model_family(model: str) -> str:
    """Models of one family are the same model: its own name, whichever provider serves it. Their vectors are
    comparable.

    `text-embedding-3-small` at OpenAI and Azure, and OpenRouter's `openai/text-embedding-3-small`, are one family.
    """
    return SAME_WEIGHTS.sub("", model.rpartition("/")[2].lower())


def _check_embedding_steps(settings: Settings, steps: tuple[Step, ...], same_family: bool | None) -> None:
    if all(kind_of(step.provider, settings.providers[step.provider]) in NO_EMBEDDINGS for step in steps):
        raise RequestError(
            f"'{steps[0]}' cannot make embeddings: its provider has none; name an OpenAI-protocol or Gemini model",
            "model",
        )
    if same_family is not False:
        _check_family(
            steps,
            "whose embeddings cannot be mixed; name the same model at each provider, or use a chain with "
            "same_model_family = false",
        )


def _check_chat_steps(settings: Settings, steps: tuple[Step, ...], same_family: bool | None) -> None:
    """A completion may come from any model, unless the chain requires one family."""
    if same_family:
        _check_family(steps, "and the chain has same_model_family = true; name the same model at each provider")


def _check_family(steps: tuple[Step, ...], consequence: str) -> None:
    for step in steps[1:]:
        if model_family(step.model) != model_family(steps[0].model):
            raise RequestError(
                f"'{steps[0]}' and '{step}' are different models, {consequence}", "fallbacks", "mixed_model_families"
            )


def canonical_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The body in OpenAI's form; the same object if nothing changed. It need not have been checked.

    Only documented and unambiguous alternatives are converted. Anything else is left to the validation of the body and
    to the provider.

    | part | documented by | becomes |
    |---|---|---|
    | `{"type": "image_url", "image_url": "https://…"}` | Mistral | `"image_url": {"url": "https://…"}` |
    | `{"type": "input_text", "text": …}`, `output_text` | OpenAI's Responses API | `text` |
    | `{"type": "input_image", "image_url": "https://…", "detail": …}` | OpenAI's Responses API | `image_url` |
    | `{"type": "image", "source": {"type": "base64", …}}`, `"url"` | Anthropic | `image_url` |
    """
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


ENDPOINTS: Mapping[Endpoint, Rules] = {
    CHAT: Rules("messages", canonical_chat, check_body, estimate_chat_tokens, _check_chat_steps),
    EMBEDDINGS: Rules(
        "input", lambda body: body, check_embeddings_body, estimate_embeddings_tokens, _check_embedding_steps
    ),
}


def endpoint_named(url: object) -> Endpoint | None:
    """The endpoint meant by the `url` of a line or the `endpoint` of a batch. Azure omits `/v1`."""
    if not isinstance(url, str):
        return None
    path = url.rstrip("/")
    return next((known for known in ENDPOINTS if known in (path, f"/v1{path}")), None)
