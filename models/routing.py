"""From a request to its chain: which deployments may answer it, in which order, under which policy."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from models.catalog import suggestion
from models.chain import ACCEPTANCE, CHAT, Acceptance, Chain, Endpoint, Step
from models.endpoints import ENDPOINTS
from models.json_schema import Uncheckable, checker_for
from models.presets import PRESETS, family_of
from models.settings import Settings
from models.wire import NO_OVERRIDES, ROUTE_WORDS, RequestError

DEFAULT_CHAIN = "default"
MAX_STEPS = 20
MAX_MODEL_CHARS = 256
CACHE_MAX = 10_000
CACHED_KEY_BYTES = 4_096
"""What a request says about routing is remembered up to this size: overrides may be as long as a whole body."""


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What a whole batch (or command line) says about routing. A line's own words win, except that a named chain
    replaces the `model` of a line that names no chain itself. `model` is for lines without one."""

    model: str | None = None
    chain: str | None = None
    fallbacks: tuple[str | dict[str, Any], ...] = ()
    allow_fallbacks: bool | None = None
    patience_s: float | None = None
    spill: bool | None = None
    accept: frozenset[Acceptance] | None = None


class Router:
    """Resolves many requests against one configuration; lines that say the same share one Chain object."""

    def __init__(self, settings: Settings, options: RouteOptions | None = None, *, endpoint: Endpoint = CHAT) -> None:
        self._settings = settings
        self._options = options or RouteOptions()
        self._endpoint = endpoint
        self._chains: dict[Hashable, Chain] = {}

    def resolve(self, body: Mapping[str, Any]) -> tuple[Chain, dict[str, Any]]:
        """The chain of a request, and its body without the words that were ours. Raises RequestError."""
        rest = dict(body)
        words = tuple(rest.pop(word, None) for word in ROUTE_WORDS)
        key = _key(words)
        chain = self._chains.get(key)
        if chain is None:
            chain = self._build(dict(zip(ROUTE_WORDS, words, strict=True)))
            if not (isinstance(key, bytes) and len(key) > CACHED_KEY_BYTES):
                if len(self._chains) >= CACHE_MAX:
                    self._chains.clear()
                self._chains[key] = chain
        if "json_schema" in chain.accept:
            _check_schemas(chain, rest)
        return chain, rest

    def _build(self, words: dict[str, Any]) -> Chain:
        options = self._options
        steps, policy, mixes = self._lead(words)
        fallbacks = words["fallbacks"] if words["fallbacks"] is not None else list(options.fallbacks)
        if not isinstance(fallbacks, list):
            raise RequestError("'fallbacks' must be a list of models", "fallbacks")
        for index, entry in enumerate(fallbacks):
            steps += self._fallback(entry, f"fallbacks[{index}]")
        steps = tuple(_without_repeats(steps))
        if not _flag(words, "allow_fallbacks", options.allow_fallbacks, True):
            steps = steps[:1]
        if len(steps) > MAX_STEPS:
            raise RequestError(f"a chain may have {MAX_STEPS} steps; this request has {len(steps)}", "fallbacks")
        ENDPOINTS[self._endpoint].check_steps(self._settings, steps, mixes)
        patience_s = _patience(words["patience_s"]) if words["patience_s"] is not None else options.patience_s
        wanted = options.accept if options.accept is not None else policy.accept
        chain = policy.model_copy(
            update={
                "steps": steps,
                "endpoint": self._endpoint,
                "patience_s": patience_s if patience_s is not None else policy.patience_s,
                "spill": _flag(words, "spill", options.spill, policy.spill),
                "accept": acceptance(words["accept"]) if words["accept"] is not None else wanted,
            }
        )
        return _writable(chain)

    def _lead(self, words: dict[str, Any]) -> tuple[tuple[Step, ...], Chain, bool]:
        """The steps before the fallbacks, a chain with the policy that comes with them, and whether that allows models
        of several families."""
        named = words["chain"] if words["chain"] is not None else self._options.chain
        if named is not None:
            if not isinstance(named, str):
                raise RequestError("'chain' must be a chain's name", "chain")
            if named not in self._settings.chains:
                raise RequestError(f"unknown chain {_quoted(named)}{suggestion(named, self._settings.chains)}", "chain")
            model = named
        else:
            given = words["model"] if words["model"] is not None else self._options.model
            model = _checked_name(given, "model") if given is not None else self._only_choice()
        if named is not None or model in self._settings.chains:
            chain = configured_chain(self._settings, model)
            return chain.steps, chain, not self._settings.chains[model].same_model_family
        step = resolve_model(self._settings, model, "model")
        return (step,), Chain(steps=(step,)), False

    def _only_choice(self) -> str:
        """What a request without a model means: the chain `default`, or the only model that is configured."""
        settings = self._settings
        if DEFAULT_CHAIN in settings.chains:
            return DEFAULT_CHAIN
        listed = [f"{name}/{model}" for name, provider in settings.providers.items() for model in provider.models]
        if len(listed) == 1:
            return listed[0]
        if not settings.providers:
            raise RequestError(_nothing_configured(), "model")
        example = f"{min(settings.providers)}/MODEL"
        raise RequestError(
            f"the request names no 'model' and there is no chain 'default'; name one such as '{example}', "
            "or configure [chains.default]",
            "model",
        )

    def _fallback(self, entry: object, where: str) -> tuple[Step, ...]:
        if isinstance(entry, dict):
            params = dict(entry)
            name = _checked_name(params.pop("model", None), f"{where}.model")
        else:
            params, name = {}, _checked_name(entry, where)
        steps: tuple[Step, ...]
        if name in self._settings.chains:
            steps = configured_chain(self._settings, name).steps
        else:
            steps = (resolve_model(self._settings, name, where),)
        return tuple(_with_params(step, params, where) for step in steps)


def _writable(chain: Chain) -> Chain:
    """The chain, if the ledger can keep it: what could just be read may be too deep to be written within ours."""
    try:
        chain.id  # noqa: B018
    except (TypeError, ValueError):
        raise RequestError("a step's overrides are nested too deep", "fallbacks") from None
    return chain


def _key(words: tuple[Any, ...]) -> Hashable:
    """Equal for requests that say the same about routing; scalars are compared with their types (1 is not true)."""
    key = tuple((type(word), word) for word in words)
    try:
        hash(key)
    except TypeError:  # lists and objects: by their content
        try:
            return orjson.dumps(words)
        except TypeError:
            raise RequestError("the words about routing must be plain JSON", "fallbacks") from None
    return key


def resolve(
    settings: Settings, body: Mapping[str, Any], options: RouteOptions | None = None, *, endpoint: Endpoint = CHAT
) -> tuple[Chain, dict[str, Any]]:
    """One request's chain, and its body without the words that were ours. Raises RequestError.

    For many requests keep a Router.
    """
    return Router(settings, options, endpoint=endpoint).resolve(body)


def configured_chain(settings: Settings, name: str) -> Chain:
    """A chain of the configuration, by name."""
    config = settings.chains[name]
    steps: list[Step] = []
    for index, entry in enumerate(config.steps):
        where = f"chains.{name}.steps[{index}]"
        steps.append(_with_params(resolve_model(settings, entry.model, where), entry.params, where))
    return Chain(
        steps=tuple(steps),
        patience_s=config.patience_s,
        spill=config.spill,
        fallback_on=config.fallback_on,
        accept=frozenset(config.accept),
    )


def resolve_model(settings: Settings, name: str, where: str) -> Step:
    """`provider/model`, or a bare model name that belongs to one configured provider. Raises RequestError."""
    provider, slash, model = name.partition("/")
    if slash and model and provider in settings.providers:
        return Step(provider=provider, model=model)
    listing = [known for known, each in settings.providers.items() if name in each.models]
    if len(listing) > 1:
        wanted = " or ".join(f"'{each}/{name}'" for each in sorted(listing))
        raise RequestError(f"several providers list the model {_quoted(name)} in {where}; write {wanted}", where)
    if listing:
        return Step(provider=listing[0], model=name)
    return _by_family(settings, name, where)


def _by_family(settings: Settings, name: str, where: str) -> Step:
    family = family_of(name)
    owners = [known for known, each in settings.providers.items() if family and (each.preset or known) == family]
    if len(owners) == 1:
        return Step(provider=owners[0], model=name)
    if family and not owners:
        raise RequestError(
            f"{where} names {_quoted(name)}, but provider '{family}' is not configured; {_how(family)}"
            f"{_configured(settings)}",
            where,
        )
    provider, slash, model = name.partition("/")
    if slash:
        raise RequestError(_unknown_provider(settings, provider, model, where), where)
    if not settings.providers:
        raise RequestError(_nothing_configured(), where)
    example = f"{min(owners or settings.providers)}/{name}"
    raise RequestError(
        f"{where} names {_quoted(name)}, which is neither a chain nor a model of one known provider; "
        f"write it as 'provider/model', such as '{example}'",
        where,
    )


def _unknown_provider(settings: Settings, provider: str, model: str, where: str) -> str:
    if not model:
        return f"{where} must be 'provider/model'; '{provider}/' lacks the model"
    if provider in PRESETS:
        return f"provider '{provider}' in {where} is not configured; {_how(provider)}"
    return f"unknown provider {_quoted(provider)} in {where}{suggestion(provider, settings.providers)}"


def _how(preset: str) -> str:
    variable = PRESETS[preset].env
    section = f"add [providers.{preset}] to understudy.toml"
    return f"set {variable} or {section}" if variable else section


def _configured(settings: Settings) -> str:
    """The end of a sentence: what could be named instead."""
    known = [*sorted(settings.chains), *(f"{name}/…" for name in sorted(settings.providers))]
    return f", or name one of {', '.join(known)}" if known else ""


def _nothing_configured() -> str:
    return "no provider is configured; set OPENAI_API_KEY or another provider's key, or write understudy.toml"


def _checked_name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise RequestError(f"'{where}' must be a model's or a chain's name, or an object with 'model'", where)
    if len(value) > MAX_MODEL_CHARS or not value.isprintable() or value != value.strip():
        raise RequestError(f"'{where}' is no model name: over {MAX_MODEL_CHARS} characters, or with blanks", where)
    return value


def _with_params(step: Step, params: Mapping[str, Any], where: str) -> Step:
    if not params:
        return step
    for word in sorted(NO_OVERRIDES & params.keys()):
        raise RequestError(f"{where} cannot override '{word}'", where)
    return step.model_copy(update={"params": {**step.params, **params}})


def _without_repeats(steps: Iterable[Step]) -> Iterable[Step]:
    """A step that stands in a chain already would only ask the same again."""
    seen: list[Step] = []
    for step in steps:
        if step not in seen:
            seen.append(step)
            yield step


def _flag(words: Mapping[str, Any], word: str, option: bool | None, default: bool) -> bool:
    value = words[word]
    if value is None:
        return option if option is not None else default
    if not isinstance(value, bool):
        raise RequestError(f"'{word}' must be true or false", word)
    return value


def _patience(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise RequestError("'patience_s' must be a number of seconds, 0 or more", "patience_s")
    return float(value)


def acceptance(value: object) -> frozenset[Acceptance]:
    """What an answer must be, as a request says it. Raises RequestError."""
    if not isinstance(value, list | tuple | frozenset) or any(each not in ACCEPTANCE for each in value):
        raise RequestError(f"'accept' must be a list of {', '.join(ACCEPTANCE)}", "accept")
    return frozenset(value)


def _check_schemas(chain: Chain, body: Mapping[str, Any]) -> None:
    """Refuse a schema that answers could not be checked against, before they are paid for."""
    for response_format in (body.get("response_format"), *(step.params.get("response_format") for step in chain.steps)):
        wanted = response_format.get("json_schema") if isinstance(response_format, dict) else None
        schema = wanted.get("schema") if isinstance(wanted, dict) else None
        if not isinstance(schema, dict):
            continue
        try:
            checker_for(schema)
        except Uncheckable as why:
            raise RequestError(
                f"'accept' names json_schema, but answers cannot be checked against this schema: {why}",
                "response_format",
                "schema_not_checkable",
            ) from None


def _quoted(text: str) -> str:
    return f"'{text if len(text) <= 80 else text[:77] + '...'}'"
