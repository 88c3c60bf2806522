"""Model names: which provider a request refers to."""

from collections.abc import Iterator
from difflib import get_close_matches

from understudy.models.config.catalog import ResolvedProvider, resolve_provider
from understudy.models.config.presets import PRESETS, family_of
from understudy.models.config.settings import Settings
from understudy.models.errors import suggestion
from understudy.models.request.wire import NOT_FOUND, RequestError
from understudy.models.routing.chain import Step

MAX_MODEL_CHARS = 256
"""OpenAI's code for a model that does not exist; over HTTP with status 404."""


def resolve_model(settings: Settings, name: str, where: str) -> Step:
    """`provider/model`, or a bare model name that belongs to one configured provider. Raises RequestError."""
    provider, slash, model = name.partition("/")
    if slash and model and provider in settings.providers:
        return Step(provider=provider, model=model)
    listing = [known for known, each in settings.providers.items() if name in each.models]
    if len(listing) > 1:
        wanted = " or ".join(f"'{each}/{name}'" for each in sorted(listing))
        raise RequestError(f"several providers list the model {quoted(name)} in {where}; write {wanted}", where)
    if listing:
        return Step(provider=listing[0], model=name)
    return _by_family(settings, name, where)


def _by_family(settings: Settings, name: str, where: str) -> Step:
    family = family_of(name)
    owners = [known for known, each in settings.providers.items() if family and (each.preset or known) == family]
    if len(owners) == 1:
        return Step(provider=owners[0], model=name)
    if family and not owners:
        raise _unknown(
            f"{where} names {quoted(name)}, but provider '{family}' is not configured; {_how(family)}"
            f"{_configured(settings)}",
            where,
        )
    provider, slash, model = name.partition("/")
    if slash:
        raise _unknown(_unknown_provider(settings, provider, model, where), where)
    if not settings.providers:
        raise RequestError(nothing_configured(), where)
    if near := get_close_matches(name, settings.chains, n=1):
        how = f"did you mean the chain '{near[0]}'?"
    else:
        how = f"write it as 'provider/model', such as '{min(owners or settings.providers)}/{name}'"
    raise _unknown(
        f"{where} names {quoted(name)}, which is neither a chain nor a model of one known provider; {how}", where
    )


def _unknown(message: str, where: str) -> RequestError:
    """Only for a request's own `model`: other wrong names are ordinary invalid fields."""
    return RequestError(message, where, NOT_FOUND) if where == "model" else RequestError(message, where)


def _unknown_provider(settings: Settings, provider: str, model: str, where: str) -> str:
    if not model:
        return f"{where} must be 'provider/model'; '{provider}/' lacks the model"
    if provider in PRESETS:
        return f"provider '{provider}' in {where} is not configured; {_how(provider)}"
    return f"unknown provider {quoted(provider)} in {where}{suggestion(provider, settings.providers)}"


def _how(preset: str) -> str:
    variable = PRESETS[preset].env
    section = f"add [providers.{preset}] to understudy.toml"
    return f"set {variable} or {section}" if variable else section


def _configured(settings: Settings) -> str:
    """The end of a sentence: what could be named instead."""
    known = [*sorted(settings.chains), *(f"{name}/…" for name in sorted(settings.providers))]
    return f", or name one of {', '.join(known)}" if known else ""


def nothing_configured() -> str:
    return "no provider is configured; set OPENAI_API_KEY or another provider's key, or write understudy.toml"


def named_deployments(settings: Settings) -> Iterator[tuple[ResolvedProvider, str | None]]:
    """Each provider with the models named by chains, model lists, prices and limits; with None if there are none."""
    named: dict[str, dict[str, None]] = {name: {} for name in settings.providers}
    for chain in settings.chains.values():
        for config in chain.all_steps:
            step = resolve_model(settings, config.model, "model")
            named[step.provider][step.model] = None
    for name, models in named.items():
        provider = settings.providers[name]
        limited = (override.model for override in provider.limits if override.model is not None)
        models |= dict.fromkeys([*provider.models, *provider.prices, *limited])
        for model in models or (None,):
            yield resolve_provider(settings, name), model


def checked_name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise RequestError(f"'{where}' must be the name of a model or a chain, or an object with 'model'", where)
    if len(value) > MAX_MODEL_CHARS or not value.isprintable() or value != value.strip():
        raise RequestError(f"'{where}' is not a model name: over {MAX_MODEL_CHARS} characters, or with spaces", where)
    return value


def quoted(text: str) -> str:
    return f"'{text if len(text) <= 80 else text[:77] + '...'}'"
