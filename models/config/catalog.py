"""Providers by name, completed by their presets: protocol, address, keys, accounts, limits."""

from dataclasses import dataclass
from functools import lru_cache

from understudy.models.config.presets import DEFAULT_REGION, PRESETS, Kind
from understudy.models.config.provider_settings import ApiKey, Limits, Provider
from understudy.models.config.settings import Settings
from understudy.models.errors import WrongUse, suggestion

NO_KEY = ApiKey(name="none", value="env.NONE")
"""Stands in for the key of a server that needs none."""


class UnknownProvider(WrongUse):
    """No provider of this name is configured. The message is one readable sentence."""


@dataclass(frozen=True, slots=True)
class ResolvedProvider:
    """A configured provider with its gaps filled from its preset.

    `preset` is the dialect passed to adapters; for a provider outside the catalog it is the protocol. With `needs_key`
    False, calls without a secret are fine. `settings` has the limits, headers and prices.
    """

    name: str
    preset: str
    kind: Kind
    base_url: str
    needs_key: bool
    settings: Provider

    @property
    def api_keys(self) -> tuple[ApiKey, ...]:
        return self.settings.api_keys


def resolve_provider(settings: Settings, name: str) -> ResolvedProvider:
    """The provider that a step names. Raises UnknownProvider; everything else was checked by `load_settings`."""
    provider = settings.providers.get(name)
    if provider is None:
        raise UnknownProvider(f"unknown provider '{name}'{suggestion(name, settings.providers)}")
    preset_name = provider.preset or name
    preset = PRESETS.get(preset_name)
    kind = kind_of(name, provider)
    base_url = provider.base_url or (preset.base_url if preset else None)
    if base_url is None:
        raise UnknownProvider(f"provider '{name}' has no base_url; set it under [providers.{name}]")
    return ResolvedProvider(
        name=name,
        preset=preset_name if preset else kind,
        kind=kind,
        base_url=base_url.replace("{region}", provider.options.get("region", DEFAULT_REGION)).rstrip("/"),
        needs_key=preset.needs_key if preset else bool(provider.api_keys),
        settings=provider,
    )


def kind_of(name: str, provider: Provider) -> Kind:
    """The protocol that a configured provider speaks."""
    preset = PRESETS.get(provider.preset or name)
    return provider.kind or (preset.kind if preset else "openai")


def account_of(provider: str, key: ApiKey) -> str:
    """The account whose limits a key counts against, unique across providers: `openai:main`."""
    return f"{provider}:{key.account or key.name}"


def limits_of(provider: Provider, model: str, key: ApiKey) -> Limits:
    """The most specific limits win, field by field: model and account, account, model, provider."""
    account = key.account or key.name
    matching = [
        override
        for override in provider.limits
        if override.model in (None, model) and override.account in (None, account)
    ]
    matching.sort(key=lambda override: (override.account is not None, override.model is not None), reverse=True)
    sources: list[Limits] = [*matching, provider]
    return Limits(
        **{
            name: next((value for source in sources if (value := getattr(source, name)) is not None), None)
            for name in Limits.model_fields
        }
    )


def keys_of(provider: ResolvedProvider) -> tuple[ApiKey, ...]:
    """The credentials for calls; empty if the provider needs a key and has none."""
    return provider.api_keys or (() if provider.needs_key else (NO_KEY,))


@lru_cache(maxsize=4096)
def window(model: str) -> int | None:
    """The context window of a model in tokens, input and output together, or None if unknown.

    Source: the offline tables of genai-prices. Names with a vendor prefix ("vendor/model") are looked up under
    OpenRouter.
    """
    from genai_prices.data_snapshot import get_snapshot  # 0.3 s to import; commands that need no window skip it

    for reference, provider in ((model, None), (model.rpartition("/")[2], None), (model, "openrouter")):
        try:
            _, known = get_snapshot().find_provider_model(reference, None, provider, None)
        except LookupError:
            continue
        if known.context_window:
            return int(known.context_window)
    return None
