"""The chains and models that a tenant may use, and whether they have a price where a budget must know their cost.

Allowed names are chains, `provider/model`, and `provider/*` for all models of a provider. A chain allowed by name may
use all its steps; any other chain is judged by the steps it stands for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from understudy.models.config.settings import Settings
from understudy.models.costs.pricing import Pricing
from understudy.models.errors import suggestion
from understudy.models.request.tokens import Usage
from understudy.models.request.wire import NOT_ALLOWED, RequestError
from understudy.models.routing.chain import Step
from understudy.models.routing.data_rules import Rules
from understudy.models.routing.model_names import checked_name, quoted, resolve_model

NO_PRICE = "model_without_price"

ALL_MODELS = "*"
NAMES_SHOWN = 10

CHOOSES_MODELS = ("models", "preset")
"""Body fields that make a reseller route to a different model."""


class Allowed:
    """The part of a configuration that a tenant's rules allow."""

    def __init__(self, settings: Settings, allow: tuple[str, ...] | None) -> None:
        """`allow` None: everything."""
        self._settings = settings
        self._names = None if allow is None else frozenset(allow)
        self._of_chains: frozenset[str] | None = None

    @property
    def models(self) -> list[str]:
        """The models that are allowed by their own names."""
        return sorted(name for name in self._names or () if "/" in name and not name.endswith(f"/{ALL_MODELS}"))

    def model(self, step: Step | str) -> bool:
        """Allowed by its own name or by its provider's."""
        if self._names is None:
            return True
        name = str(step)
        return name in self._names or f"{name.partition('/')[0]}/{ALL_MODELS}" in self._names

    def chain(self, name: str) -> bool:
        """A configured chain."""
        if self._names is None or name in self._names:
            return True
        return all(self.model(model) for model in _models_of(self._settings, name))

    def was_accepted(self, step: Step | str) -> bool:
        """For steps whose requested name is no longer known."""
        if self._names is not None and self._of_chains is None:
            chains = self._names & self._settings.chains.keys()
            self._of_chains = frozenset(model for name in chains for model in _models_of(self._settings, name))
        return self.model(step) or str(step) in (self._of_chains or ())

    def refusal(self, name: str, where: str) -> RequestError:
        """The same error for existing and unknown names."""
        names = sorted(self._names or ())
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        may = f"it may use {', '.join(names[:NAMES_SHOWN])}{more}" if names else "it may use no model"
        return RequestError(f"this tenant may not use {quoted(name)}; {may} (GET /v1/models)", where, NOT_ALLOWED)


class Prices:
    """Whether a budget can account for the cost of models."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pricing = Pricing(settings)

    def refuse_unpriced(self, steps: Iterable[Step], payer: str | None) -> None:
        """`payer`: whose budget covers all of the steps; a provider's own budget covers its own. Providers that are
        no longer configured are skipped. Raises RequestError."""
        for step in steps:
            whose = payer or self._budget_of(step.provider)
            if whose is not None and step.provider in self._settings.providers and not self._is_known(step):
                raise RequestError(no_price(step, whose), "model", NO_PRICE)

    def _budget_of(self, provider: str) -> str | None:
        found = self._settings.providers.get(provider)
        if found is None or (found.budget_usd_per_day is None and found.budget_usd_per_month is None):
            return None
        return f"provider '{provider}'"

    def _is_known(self, step: Step) -> bool:
        return self._pricing.cost_usd(step.provider, step.model, Usage()) is not None


def no_price(step: Step | str, whose: str) -> str:
    """One sentence: which model, which budget, and the remedy."""
    provider, _, model = str(step).partition("/")
    return (
        f"{quoted(str(step))} has no known price, so the budget of {whose} cannot account for it; name another "
        f"model, or ask the operator to set its price (0 if it is free) under [providers.{provider}.prices], "
        f'such as "{model}" = {{ input = 0.5, output = 1.5 }} in US dollars per million tokens'
    )


def refuse_choice_of_models(rules: Rules, *bodies: Mapping[str, Any]) -> None:
    """Where rules depend on the model, the request must not choose another one at the provider. Raises RequestError."""
    if rules.allow is None and rules.payer is None:
        return
    for body in bodies:
        for word in CHOOSES_MODELS:
            if word in body:
                why = "would let the provider use a model that is unknown here; name models in 'fallbacks'"
                raise RequestError(f"'{word}' {why}", word, NOT_ALLOWED)


def allowed_name(settings: Settings, given: str) -> str:
    """An entry of an allow list in the form used for comparison. Raises ValueError, one sentence: a misspelt name
    would lock its tenant out."""
    name = given.strip()
    if name in settings.chains:
        return name
    provider, slash, model = name.partition("/")
    if slash and provider not in settings.providers:
        raise ValueError(
            f"provider {quoted(provider)} is not configured here{suggestion(provider, settings.providers)}"
        )
    if slash and ALL_MODELS in model and model != ALL_MODELS:
        raise ValueError(f"'{ALL_MODELS}' stands for all models of a provider: write '{provider}/{ALL_MODELS}'")
    try:
        return str(resolve_model(settings, checked_name(name, "the name"), "the name"))
    except RequestError as error:
        raise ValueError(error.message) from None


def _models_of(settings: Settings, chain: str) -> list[str]:
    """The steps of a configured chain as `provider/model`; if the chain cannot be used, its error."""
    found = []
    for config in settings.chains[chain].all_steps:
        try:
            found.append(str(resolve_model(settings, config.model, "model")))
        except RequestError:
            found.append(config.model)
    return found
