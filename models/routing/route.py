"""From a request to its chain: which deployments may answer it, in which order, under which policy."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from understudy.models.config.settings import ChainConfig, Settings, StepConfig
from understudy.models.errors import suggestion
from understudy.models.request.endpoints import ENDPOINTS
from understudy.models.request.needs import schema_of
from understudy.models.request.wire import RequestError
from understudy.models.routing.allowlist import Allowed, Prices, refuse_choice_of_models
from understudy.models.routing.chain import CHAT, Chain, Endpoint, Step, Variants, When
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.routing.model_names import checked_name, nothing_configured, quoted, resolve_model
from understudy.models.routing.policy import ChainPolicy
from understudy.models.routing.request_options import NO_OVERRIDES, ROUTE_WORDS, RouteOptions, when_of
from understudy.models.routing.suitability import Suitability

DEFAULT_CHAIN = "default"
MAX_STEPS = 20
CACHE_MAX = 10_000
CACHED_KEY_BYTES = 4_096
"""Routing options up to this size are cached: overrides may be as long as a whole body."""

REASONS_SHOWN = 3
AnEntry = TypeVar("AnEntry", Step, Variants)


class Router:
    """Resolves many requests against one configuration; lines with equal options share one Chain object."""

    def __init__(
        self,
        settings: Settings,
        options: RouteOptions | None = None,
        *,
        endpoint: Endpoint = CHAT,
        rules: Rules = NO_RULES,
    ) -> None:
        """`rules` apply to every request in addition to its own, its chain's and those of the options: a tenant's
        rules."""
        self._settings = settings
        self._suitability = Suitability(settings)
        self._options = options or RouteOptions()
        self._endpoint = endpoint
        self._rules = rules
        self._allowed = Allowed(settings, rules.allow)
        self._prices = Prices(settings)
        self._routes: dict[Hashable, _Route] = {}

    def resolve(self, body: Mapping[str, Any], name: str = "") -> tuple[Chain, dict[str, Any]]:
        """A request's chain, and its body without our routing options. Raises RequestError.

        `name` is the job's: its custom_id, or else its id. The same name always gets the same variant of a weighted
        step. Blocks until the schemas of `schemas_to_check` are checked.
        """
        chain, rest = self.route(body, name)
        check_schemas(schemas_to_check(chain, rest))
        return chain, rest

    def route(self, body: Mapping[str, Any], name: str = "") -> tuple[Chain, dict[str, Any]]:
        """Like `resolve` but without checking schemas, for callers that must not block."""
        rest = dict(body)
        words = tuple(rest.pop(word, None) for word in ROUTE_WORDS)
        refuse_choice_of_models(self._rules, rest)
        key = _key(words)
        route = self._routes.get(key)
        if route is None:
            route = self._build(dict(zip(ROUTE_WORDS, words, strict=True)))
            if not (isinstance(key, bytes) and len(key) > CACHED_KEY_BYTES):
                if len(self._routes) >= CACHE_MAX:
                    self._routes.clear()
                self._routes[key] = route
        return route.chain_of(name), rest

    def _build(self, words: dict[str, Any]) -> "_Route":
        asked = self._options.merged(RouteOptions.of(words))
        entries, config = self._named(*self._first(asked))
        rules = self._rules
        for index, entry in enumerate(asked.fallbacks):
            more, theirs = self._fallback(entry, f"fallbacks[{index}]")
            entries += more
            rules = rules.merged(theirs)
        entries = _without_repeats(entries)
        if not asked.allow_fallbacks:
            entries = entries[:1]
        steps = tuple(step for entry in entries for step in entry.steps)
        if len(steps) > MAX_STEPS:
            raise RequestError(f"a chain may have {MAX_STEPS} steps; this request has {len(steps)}", "fallbacks")
        ENDPOINTS[self._endpoint].check_steps(self._settings, steps, config.same_model_family if config else None)
        refuse_choice_of_models(self._rules, *(step.params for step in steps))
        self._prices.refuse_unpriced(steps, self._rules.payer)
        policy = ChainPolicy().merged(*((asked,) if config is None else (config, asked)), rules=rules)
        if policy.conflict is not None:
            field, reason = policy.conflict
            raise RequestError(f"'{field}' {reason}", field)
        chain = Chain.model_construct(steps=(), endpoint=self._endpoint, **dict(policy))
        _refuse_unless_allowed(self._suitability, chain, entries)
        return _Route(entries, chain)

    def _first(self, asked: RouteOptions) -> tuple[str, str]:
        """The name before the fallbacks, and the field that it is from."""
        if asked.chain is None:
            return self._only_choice() if asked.model is None else checked_name(asked.model, "model"), "model"
        if asked.chain in self._settings.chains:
            return asked.chain, "chain"
        if self._rules.allow is not None:
            raise self._allowed.refusal(asked.chain, "chain")
        near = suggestion(asked.chain, self._settings.chains)
        raise RequestError(f"unknown chain {quoted(asked.chain)}{near}", "chain")

    def _named(self, name: str, where: str) -> tuple[tuple[Variants, ...], ChainConfig | None]:
        """The steps of a chain or model by its name, and the chain."""
        if name not in self._settings.chains:
            return (Variants((self._model(name, where),)),), None
        if not self._allowed.chain(name):
            raise self._allowed.refusal(name, where)
        return configured_entries(self._settings, name), self._settings.chains[name]

    def _model(self, name: str, where: str) -> Step:
        """A model by its name, if allowed. Raises RequestError."""
        try:
            step = resolve_model(self._settings, name, where)
        except RequestError:
            if self._rules.allow is None:
                raise
            raise self._allowed.refusal(name, where) from None  # the message would reveal names that others may use
        if not self._allowed.model(step):
            raise self._allowed.refusal(name, where)
        return step

    def _only_choice(self) -> str:
        """The route of a request without a model: the chain `default`, or the only configured model."""
        settings = self._settings
        if DEFAULT_CHAIN in settings.chains:
            return DEFAULT_CHAIN
        listed = [f"{name}/{model}" for name, provider in settings.providers.items() for model in provider.models]
        if len(listed) == 1:
            return listed[0]
        if not settings.providers:
            raise RequestError(nothing_configured(), "model")
        example = f"{min(settings.providers)}/MODEL"
        raise RequestError(
            f"the request names no 'model' and there is no chain 'default'; name one such as '{example}', "
            "or configure [chains.default]",
            "model",
        )

    def _fallback(self, entry: object, where: str) -> tuple[tuple[Variants, ...], Rules]:
        """The steps that a fallback stands for, and the data rules of the chain it names."""
        if isinstance(entry, dict):
            params = dict(entry)
            name = checked_name(params.pop("model", None), f"{where}.model")
            when = when_of(params.pop("when", None), f"{where}.when")
        else:
            params, when, name = {}, None, checked_name(entry, where)
        entries, config = self._named(name, where)
        if when is not None and config is not None:
            raise RequestError(f"'{where}.when' applies to a single model; the chain {quoted(name)} has its own", where)
        changed = tuple(
            Variants(tuple(_changed(step, params, when, where) for step in each.steps), each.weights)
            for each in entries
        )
        return changed, config.rules if config else NO_RULES


class _Route:
    """Shared by requests with equal routing options: their chains differ only in the variants of weighted steps."""

    def __init__(self, entries: tuple[Variants, ...], policy: Chain) -> None:
        self._entries = entries
        self._policy = policy
        self._chains: dict[tuple[int, ...], Chain] = {}

    def chain_of(self, name: str) -> Chain:
        chosen = tuple(entry.variant_for(name) for entry in self._entries)
        if chosen not in self._chains:
            steps = [entry.steps[index] for entry, index in zip(self._entries, chosen, strict=True)]
            chain = self._policy.model_copy(update={"steps": _without_repeats(steps)})
            try:
                chain.id  # noqa: B018
            except (TypeError, ValueError):  # what could be parsed may be too deeply nested to be stored
                raise RequestError("a step's overrides are nested too deeply", "fallbacks") from None
            self._chains[chosen] = chain
        return self._chains[chosen]


def _key(words: tuple[Any, ...]) -> Hashable:
    """Equal for requests with equal routing options; scalars are compared with their types (1 is not true)."""
    key = tuple((type(word), word) for word in words)
    try:
        hash(key)
    except TypeError:  # lists and objects: by their content
        try:
            return orjson.dumps(words)
        except TypeError:
            raise RequestError("the routing options must be plain JSON", "fallbacks") from None
    return key


def under_rules(settings: Settings, chain: Chain, rules: Rules) -> Chain:
    """An accepted chain under additional rules. Raises RequestError if data rules allow none of its steps, if a step
    is not allowed, or if a step has no price that a budget could account for."""
    allowed = Allowed(settings, rules.allow)
    for step in chain.steps:
        if not allowed.was_accepted(step):
            raise allowed.refusal(str(step), "model")
    Prices(settings).refuse_unpriced(chain.steps, rules.payer)
    ruled = chain.merged(rules=rules)
    _refuse_unless_allowed(Suitability(settings), ruled, [Variants((step,)) for step in ruled.steps])
    return ruled


def _refuse_unless_allowed(suitability: Suitability, policy: Chain, entries: Iterable[Variants]) -> None:
    """Reject a chain without an allowed step: it would wait forever. Every variant of a weighted step must be
    allowed."""
    broken = []
    for entry in entries:
        reasons = [reason for step in entry.steps if (reason := suitability.broken_rule(policy, step)) is not None]
        if not reasons:
            return
        broken += reasons
    more = f"; and {len(broken) - REASONS_SHOWN} more" if len(broken) > REASONS_SHOWN else ""
    raise RequestError(
        f"the data rules allow no step: {'; '.join(broken[:REASONS_SHOWN])}{more}; set 'tags' on "
        "providers, or change the steps or rules",
        "require" if policy.require else "forbid",
        "no_step_allowed",
    )


def configured_chain(settings: Settings, name: str) -> Chain:
    """A configured chain by name, with every variant of its weighted steps."""
    steps = (step for entry in configured_entries(settings, name) for step in entry.steps)
    return Chain(steps=tuple(steps), **dict(ChainPolicy().merged(settings.chains[name])))


def configured_entries(settings: Settings, name: str) -> tuple[Variants, ...]:
    """The steps of a configured chain; weighted steps are left open."""
    return tuple(
        Variants(
            tuple(_configured_step(settings, config, f"chains.{name}.steps[{index}]") for config in variants),
            tuple(config.weight for config in variants),
        )
        for index, variants in enumerate(settings.chains[name].places)
    )


def _configured_step(settings: Settings, config: StepConfig, where: str) -> Step:
    return _changed(resolve_model(settings, config.model, where), config.params, config.when, where)


def _changed(step: Step, params: Mapping[str, Any], when: When | None, where: str) -> Step:
    for word in sorted(NO_OVERRIDES & params.keys()):
        raise RequestError(f"{where} cannot override '{word}'", where)
    return step.model_copy(update={"params": {**step.params, **params}, "when": when or step.when})


def _without_repeats(entries: Sequence[AnEntry]) -> tuple[AnEntry, ...]:
    """A repeated step would only send the same call again."""
    return tuple(entry for index, entry in enumerate(entries) if entry not in entries[:index])


def schemas_to_check(chain: Chain, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The schemas that the chain checks answers to a body against: the body's own, and those of its steps."""
    if "json_schema" not in chain.accept:
        return []
    formats = body.get("response_format"), *(step.params.get("response_format") for step in chain.steps)
    return [schema for schema in map(schema_of, formats) if schema is not None]


def check_schemas(schemas: Iterable[Mapping[str, Any]]) -> None:
    """Reject a schema that answers could not be checked against, before answers are paid for. Raises RequestError.

    Blocks: see `models.schemas.json_schema` for how long.
    """
    # few chains need it, and every command would load it
    from understudy.models.schemas.json_schema import Uncheckable, check_schema

    for schema in schemas:
        try:
            check_schema(schema)
        except Uncheckable as why:
            raise RequestError(
                f"'accept' names json_schema, but answers cannot be checked against this schema: {why}",
                "response_format",
                "schema_not_checkable",
            ) from None
