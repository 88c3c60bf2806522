"""What a request needs of a model: room for its tokens, and what it can read and do."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from understudy.models.request.tokens import FILE_TOKENS, IMAGE_TOKENS
from understudy.models.routing.chain import EMBEDDINGS, Endpoint, Feature, Modality

MEDIA: Mapping[str, tuple[Modality, Feature]] = {
    "image_url": ("image", "images"),
    "input_audio": ("audio", "audio"),
    "file": ("file", "files"),
}
"""What the parts of a message are beside text, by their type."""

TEXT_ALONE: frozenset[Modality] = frozenset({"text"})
NOTHING: frozenset[Feature] = frozenset()

OUTPUT_WORDS = ("max_completion_tokens", "max_tokens")
"""The most tokens of one answer; the first that is there counts."""


NOT_PLAIN = frozenset({"tools", "response_format", "modalities", "n"})


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one request. Token counts are estimates, but for `output_tokens`, which the request says itself.

    `text_tokens` is the part of the input that one context window has to hold for sure: without images and files,
    whose size nobody knows before, and without lists of texts to be embedded, each of which is read on its own.
    `output_tokens` is the most that one answer may have; 0: the request does not say.
    """

    input_tokens: int = 0
    text_tokens: int = 0
    output_tokens: int = 0
    modalities: frozenset[Modality] = TEXT_ALONE
    features: frozenset[Feature] = NOTHING

    def with_params(self, params: Mapping[str, Any]) -> "Needs":
        """As a step with these overrides would ask for it."""
        if not params:
            return self
        said = next((params[word] for word in OUTPUT_WORDS if isinstance(params.get(word), int)), None)
        return replace(
            self,
            output_tokens=self.output_tokens if said is None else said,
            features=self.features | _asked_for(params),
        )


def is_plain(body: Mapping[str, Any]) -> bool:
    """Whether a chat completion is text alone, once, and asks for nothing more: the numbers of its tokens say all."""
    return body.keys().isdisjoint(NOT_PLAIN) and not any(
        isinstance(message.get("content"), list) for message in body.get("messages", ())
    )


def needs_of(body: Mapping[str, Any], endpoint: Endpoint, tokens: int, max_output_tokens: int) -> Needs:
    """Of a body that was checked. `tokens` is its estimated input, `max_output_tokens` the most of all its answers."""
    if endpoint == EMBEDDINGS:
        given = body.get("input")
        is_one = isinstance(given, str) or (isinstance(given, list) and (len(given) == 1 or isinstance(given[0], int)))
        return Needs(input_tokens=tokens, text_tokens=tokens if is_one else 0)
    kinds = [
        part.get("type")
        for message in body.get("messages", ())
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if "text" not in part
    ]
    media = [MEDIA[kind] for kind in set(kinds) if kind in MEDIA]
    guessed = sum(IMAGE_TOKENS if kind == "image_url" else FILE_TOKENS for kind in kinds)
    answers = body.get("n")
    return Needs(
        input_tokens=tokens,
        text_tokens=max(tokens - guessed, 0),
        output_tokens=max_output_tokens // answers if isinstance(answers, int) and answers > 0 else max_output_tokens,
        modalities=TEXT_ALONE.union(modality for modality, _ in media) if media else TEXT_ALONE,
        features=_asked_for(body).union(feature for _, feature in media) if media else _asked_for(body),
    )


def _asked_for(words: Mapping[str, Any]) -> frozenset[Feature]:
    features: set[Feature] = set()
    if words.get("tools"):
        features.add("tools")
    wanted = words.get("response_format")
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_schema":
        features.add("json_schema")
    if isinstance(words.get("modalities"), list) and "audio" in words["modalities"]:
        features.add("audio")
    return frozenset(features) if features else NOTHING
