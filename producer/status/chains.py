"""How `understudy check` shows chains: steps, order, data rules, and problems that would reject every request."""

from collections.abc import Iterator

from understudy.models.config.settings import ChainConfig, Settings, StepConfig
from understudy.models.request.wire import RequestError
from understudy.models.routing.data_rules import shown
from understudy.models.routing.route import Router


def chain_lines(settings: Settings) -> Iterator[str]:
    """Tags by provider, then each chain in one line."""
    for name, provider in settings.providers.items():
        if provider.tags:
            yield f"provider {name}: tags {shown(provider.tags)}"
    for name, chain in settings.chains.items():
        yield f"chain {name}: {chain_text(chain)}"


def chain_text(chain: ChainConfig) -> str:
    text = ", then ".join(map(_entry_text, chain.places))
    if chain.order != "chain":
        text += f"; {chain.order} first"
    for word, tags in (("require", chain.require), ("forbid", chain.forbid)):
        text += f"; {word} {shown(tags)}" if tags else ""
    return text


def chain_problems(settings: Settings) -> Iterator[str]:
    """Chains that no request can use, such as one where every step violates the data rules."""
    for name in settings.chains:
        try:
            Router(settings).resolve({"chain": name})
        except RequestError as refused:
            yield f"chain {name}: {refused}"


def _entry_text(variants: tuple[StepConfig, ...]) -> str:
    if len(variants) == 1:
        return f"{variants[0].model} (some requests)" if variants[0].when else variants[0].model
    return " or ".join(f"{each.model} ({each.weight:g})" for each in variants)
