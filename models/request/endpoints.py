"""What is required of a request, per endpoint."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from understudy.models.config.catalog import kind_of
from understudy.models.config.settings import Settings
from understudy.models.request.spellings import canonical_chat
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
