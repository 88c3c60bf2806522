"""Parses the routing options of a request. All functions raise RequestError."""

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, get_args

from pydantic import ValidationError

from understudy.models.request.wire import ROUTE_WORDS, RequestError
from understudy.models.routing.chain import ACCEPTANCE, NO_FIRST_STEP, Acceptance, Chain, Order, Tags, When
from understudy.models.routing.data_rules import Rules, parse_tags

OUR_WORDS = frozenset(ROUTE_WORDS)

SHORTEST_WORD = 6
"""Shorter options are too similar to provider parameters, such as `models` and `model`."""

ALIKE = 0.85


def refuse_misspelt(document: Iterable[str], ours: frozenset[str] = OUR_WORDS) -> None:
    """Unknown fields are passed to the provider, but a misspelt option of ours must not be dropped silently: a data
    rule would be ignored.
    """
    for field in document:
        meant = None if field in ours else _meant(field[:80], ours)
        if meant is not None:
            raise RequestError(f"unknown field '{field[:80]}'; did you mean '{meant}'?", field[:80])


@lru_cache(maxsize=10_000)
def _meant(field: str, ours: frozenset[str]) -> str | None:
    """Called for every field of a million lines, which have few distinct names."""
    near = get_close_matches(field, [word for word in ours if len(word) >= SHORTEST_WORD], n=1, cutoff=ALIKE)
    return near[0] if near else None


def refuse_misplaced(line: Mapping[str, Any]) -> None:
    """Options next to a line's `body` would be overlooked."""
    for word in sorted(OUR_WORDS & line.keys()):
        raise RequestError(f"'{word}' belongs in 'body'", word)


def flag_of(words: Mapping[str, Any], word: str, option: bool | None, default: bool) -> bool:
    value = words[word]
    if value is None:
        return option if option is not None else default
    if not isinstance(value, bool):
        raise RequestError(f"'{word}' must be true or false", word)
    return value


def patience_of(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise RequestError("'patience_s' must be a number of seconds, 0 or more", "patience_s")
    return float(value)


def share_of(value: object, option: float | None, default: float | None) -> float | None:
    if value is None:
        return option if option is not None else default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError("'max_fallback_share' must be a number from 0 to 1", "max_fallback_share")
    return float(value)


def check_share(policy: Chain) -> None:
    """Raises RequestError where fallbacks are undefined."""
    if policy.max_fallback_share is not None and policy.order != "chain":
        raise RequestError(f"'max_fallback_share' {NO_FIRST_STEP}", "max_fallback_share")


def order_of(said: object, option: str | None, default: Order) -> Order:
    given = said if said is not None else option
    if given is None:
        return default
    for known in get_args(Order):
        if given == known:
            order: Order = known
            return order
    raise RequestError(f"'order' must be one of {', '.join(get_args(Order))}", "order")


def said_rules(require: object, forbid: object) -> Rules:
    tags: dict[str, Tags] = {}
    for word, value in (("require", require), ("forbid", forbid)):
        try:
            tags[word] = {} if value is None else parse_tags(value)
        except ValueError as error:
            raise RequestError(f"'{word}' {error}", word) from None
    return Rules(tags["require"], tags["forbid"])


def when_of(value: object, where: str) -> When | None:
    try:
        return None if value is None else When.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RequestError(f"'{where}{'.' if field else ''}{field}': {first['msg']}", where) from None


def acceptance(value: object) -> frozenset[Acceptance]:
    """The acceptance conditions in a request. Raises RequestError."""
    if not isinstance(value, list | tuple | frozenset) or any(each not in ACCEPTANCE for each in value):
        raise RequestError(f"'accept' must be a list of {', '.join(ACCEPTANCE)}", "accept")
    return frozenset(value)
