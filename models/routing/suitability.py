"""Why a step may not serve a request: a data rule that its provider breaks, or a property of the request.

What a model can do is configured, or else known for sure. Unknown capabilities are tried.

A rule violation depends on the configuration, which a person may fix at any moment. A misfit depends on the request: it
will be the same tomorrow.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from understudy.models.config.catalog import window
from understudy.models.config.presets import PRESETS
from understudy.models.config.provider_settings import ModelFeatures, Provider
from understudy.models.config.settings import Settings
from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain, Feature, Step, When

TOLERANCE = 1.2
"""Factor by which estimated input may be too high: nothing is skipped if it exceeds the window by less."""

FEATURE_WORDS: dict[Feature, str] = {
    "tools": "use tools",
    "json_schema": "keep to a json_schema",
    "images": "read images",
    "audio": "work with audio",
    "files": "read files",
}


TEXT_ONLY: Mapping[Feature, bool] = {"images": False, "audio": False, "files": False}

SURE: Mapping[str, tuple[tuple[re.Pattern[str], Mapping[Feature, bool]], ...]] = {
    "openai": (
        (re.compile(r"gpt-3\.5-turbo"), {**TEXT_ONLY, "json_schema": False}),
        (re.compile(r"gpt-4(-0314|-0613|-32k.*)?$"), {**TEXT_ONLY, "json_schema": False}),
        (re.compile(r"gpt-4-(turbo|1106-preview|0125-preview)"), {"audio": False, "json_schema": False}),
        (re.compile(r"(o1-mini|o1-preview)"), {**TEXT_ONLY, "tools": False, "json_schema": False}),
    ),
    "anthropic": ((re.compile(r"claude-"), {"audio": False}),),
    "deepseek": ((re.compile(r"deepseek-(chat|reasoner)$"), TEXT_ONLY),),
}
"""By preset: the first matching model name prefix applies. Only what makers document, and only at the makers' own
APIs."""

NAMES_ARE_OTHERS = frozenset(name for name, preset in PRESETS.items() if not preset.needs_key or not preset.base_url)
"""Presets whose model names say little about the model: they name a deployment or a self-hosted server."""

DATA_RULES, CONDITION, CONTEXT_WINDOW, ANSWER_LENGTH = "data rules", "its condition", "context window", "answer length"
"""Topics of a `WhyNot`, in addition to the features."""


@dataclass(frozen=True, slots=True)
class WhyNot:
    """One readable clause. `rule`: a data rule forbids it; else the request does not fit."""

    text: str
    rule: bool
    topic: str = field(default="", compare=False)  # one or two words, for counting


class Suitability:
    """Evaluates steps against today's configuration for each job; model capabilities are looked up once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._abilities: dict[tuple[str, str], ModelFeatures] = {}

    def why_not(self, chain: Chain, step: Step, needs: Needs) -> WhyNot | None:
        """None: the step may be used."""
        broken = self.broken_rule(chain, step)
        if broken is not None:
            return WhyNot(broken, rule=True, topic=DATA_RULES)
        return self._misfit(step, needs)

    def broken_rule(self, chain: Chain, step: Step) -> str | None:
        """The chain's rule that the provider of the step breaks, by its current tags."""
        if not (chain.require or chain.forbid):
            return None
        provider = self._settings.providers.get(step.provider)
        broken = chain.rules.broken_by(step.provider, provider.tags if provider else None)
        return None if broken is None else f"'{step}' breaks the rule {broken}"

    def _misfit(self, step: Step, needs: Needs) -> WhyNot | None:
        outside = _outside(step.when, needs) if step.when is not None else None
        found = (CONDITION, outside) if outside else self._too_much(step, needs.with_params(step.params))
        return None if found is None else WhyNot(f"'{step}' {found[1]}", rule=False, topic=found[0])

    def _too_much(self, step: Step, needs: Needs) -> tuple[str, str] | None:
        """The topic, and a clause about it."""
        name = (step.provider, step.model)
        known = self._abilities.get(name)
        if known is None:
            known = self._abilities[name] = abilities_of(self._settings, *name)
        for feature in sorted(needs.features):
            if getattr(known, feature) is False:
                return feature, f"cannot {FEATURE_WORDS[feature]}"
        if known.max_output_tokens is not None and needs.output_tokens > known.max_output_tokens:
            most = f"answers with at most {known.max_output_tokens:,} tokens"
            return ANSWER_LENGTH, f"{most}; the request asks for {needs.output_tokens:,}"
        room = known.context_window
        if room is not None and needs.text_tokens / TOLERANCE + needs.output_tokens > room:
            wanted = f"about {needs.text_tokens:,} tokens"
            answer = f" and {needs.output_tokens:,} for the answer" if needs.output_tokens else ""
            return CONTEXT_WINDOW, f"has a context window of {room:,} tokens; the request has {wanted}{answer}"
        return None


def _outside(when: When, needs: Needs) -> str | None:
    tokens = needs.input_tokens
    if when.min_input_tokens is not None and tokens < when.min_input_tokens:
        return f"is for requests of at least {when.min_input_tokens:,} input tokens; this one has about {tokens:,}"
    if when.max_input_tokens is not None and tokens > when.max_input_tokens:
        return f"is for requests of at most {when.max_input_tokens:,} input tokens; this one has about {tokens:,}"
    if when.modality == "text" and needs.modalities != {"text"}:
        return "is for text-only requests"
    if when.modality is not None and when.modality not in needs.modalities:
        return f"is for requests with {when.modality}"
    lacking = sorted(when.needs - needs.features)
    return f"is for requests that need {lacking[0]}" if lacking else None


def abilities_of(settings: Settings, provider: str, model: str) -> ModelFeatures:
    """Capabilities of a model at a provider; None means unknown."""
    configured = settings.providers.get(provider)
    if configured is None:
        return ModelFeatures()
    said = configured.features.get(model, ModelFeatures())
    known = said.model_dump(exclude_none=True)
    return ModelFeatures.model_validate({**_built_in(provider, configured, model), **known})


def _built_in(name: str, provider: Provider, model: str) -> Mapping[str, bool | int | None]:
    preset = provider.preset or name
    if preset not in PRESETS or preset in NAMES_ARE_OTHERS:
        return {}
    sure = next((facts for pattern, facts in SURE.get(preset, ()) if pattern.match(model)), {})
    return {"context_window": window(model), **{str(feature): can for feature, can in sure.items()}}
