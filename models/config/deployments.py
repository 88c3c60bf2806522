"""The deployments that a configuration names, each with its account and limits."""

from collections.abc import Iterator

from understudy.models.config.catalog import ResolvedProvider, resolve_provider
from understudy.models.config.settings import ApiKey, Limits, Provider, Settings
from understudy.models.routing.route import configured_chain

NO_KEY = ApiKey(name="none", value="env.NONE")
"""Stands in for the key of a server that needs none."""


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


def named_deployments(settings: Settings) -> Iterator[tuple[ResolvedProvider, str | None]]:
    """Each provider with the models named by chains, model lists, prices and limits; with None if there are none."""
    named: dict[str, dict[str, None]] = {name: {} for name in settings.providers}
    for chain in settings.chains:
        for step in configured_chain(settings, chain).steps:
            named[step.provider][step.model] = None
    for name, models in named.items():
        provider = settings.providers[name]
        limited = (override.model for override in provider.limits if override.model is not None)
        models |= dict.fromkeys([*provider.models, *provider.prices, *limited])
        for model in models or (None,):
            yield resolve_provider(settings, name), model
