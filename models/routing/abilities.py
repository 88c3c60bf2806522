"""Capabilities of models: configured values, else verified ones. Unknown capabilities are left open and tried."""

import re
from collections.abc import Mapping

from understudy.models.config.catalog import window
from understudy.models.config.presets import PRESETS
from understudy.models.config.settings import ModelFeatures, Provider, Settings
from understudy.models.routing.chain import Feature

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
