"""What a request needs from a model: room for its tokens, and features."""

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
"""The modality of message parts other than text, by type."""

TEXT_ALONE: frozenset[Modality] = frozenset({"text"})
NOTHING: frozenset[Feature] = frozenset()

OUTPUT_WORDS = ("max_completion_tokens", "max_tokens")
"""The maximum tokens of one answer; the first field present counts."""


NOT_PLAIN = frozenset({"tools", "response_format", "modalities", "n"})


@dataclass(frozen=True, slots=True)
class Needs:
    """Needs of one request. Token counts are estimates, except for `output_tokens`, which the request states.

    `text_tokens` is the part of the input that a single context window must certainly hold: without images and files,
    whose size is unknown in advance, and without lists of texts to be embedded, which are read separately.
    `output_tokens` is the maximum for one answer; 0: not stated.
    """

    input_tokens: int = 0
    text_tokens: int = 0
    output_tokens: int = 0
    modalities: frozenset[Modality] = TEXT_ALONE
    features: frozenset[Feature] = NOTHING

    def with_params(self, params: Mapping[str, Any]) -> "Needs":
        """The needs with a step's overrides applied."""
        if not params:
            return self
        said = next((params[word] for word in OUTPUT_WORDS if isinstance(params.get(word), int)), None)
        return replace(
            self,
            output_tokens=self.output_tokens if said is None else said,
            features=self.features | _asked_for(params),
        )


def is_plain(body: Mapping[str, Any]) -> bool:
    """Whether a chat completion is a single text-only answer without further options: its token counts describe it
    fully."""
    return body.keys().isdisjoint(NOT_PLAIN) and not any(
        isinstance(message.get("content"), list) for message in body.get("messages", ())
    )


def needs_of(body: Mapping[str, Any], endpoint: Endpoint, tokens: int, max_output_tokens: int) -> Needs:
    """The needs of a checked body. `tokens` is its estimated input, `max_output_tokens` the maximum of all its
    answers."""
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


def schema_of(response_format: Any) -> dict[str, Any] | None:
    """The schema in a `response_format`; None without one."""
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return None
    wanted = response_format.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    return schema if isinstance(schema, dict) else None
