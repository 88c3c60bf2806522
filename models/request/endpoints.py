"""What is asked of a request, by the endpoint that it is for."""

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
"""Protocols in which nobody can be asked for embeddings."""

SAME_WEIGHTS = re.compile(r"(?::(?:latest|free|nitro|floor|extended)|@(?:latest|default))$")
"""The ends of a model's name that change nothing about its vectors. Numbers, sizes and dates are not among them: to
refuse a chain wrongly costs a line of configuration, to mix vectors wrongly spoils an index without a word."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one endpoint. `check` and `check_steps` raise RequestError; `estimate_tokens` wants a body that was checked.

    `canonical` brings a body that was not checked yet to OpenAI's form. `needs` is the field without which a body is
    none of this endpoint's. `check_steps` gets the steps of a chain, and whether its configuration wants models of one
    family (None: it does not say).
    """

    needs: str
    canonical: Callable[[dict[str, Any]], dict[str, Any]]
    check: Callable[[Mapping[str, Any]], None]
    estimate_tokens: Callable[[Mapping[str, Any]], int]
    check_steps: Callable[[Settings, tuple[Step, ...], bool | None], None]


def model_family(model: str) -> str:
    """Models of one family are the same one: the model's own name, whoever serves it. Their vectors can be compared.

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
    """A completion may come from any model, unless the chain wants one."""
    if same_family:
        _check_family(steps, "and the chain says same_model_family = true; name the same model at each provider")


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
    """The endpoint that is meant by the `url` of a line or the `endpoint` of a batch. Azure leaves out `/v1`."""
    if not isinstance(url, str):
        return None
    path = url.rstrip("/")
    return next((known for known in ENDPOINTS if known in (path, f"/v1{path}")), None)
