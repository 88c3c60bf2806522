"""Data rules of a request: tags that providers must or must not have; and the models its tenant may use.

Fails closed: a provider without a tag has not stated what a rule asks about, so it is not used. A provider with several
values may use any of them, so each must be allowed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import BeforeValidator

Tags = dict[str, tuple[str, ...]]
"""Values by tag name, such as `region: eu, ch` or `zdr: true`."""

TAG_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
MAX_VALUE_CHARS = 64
MAX_TAGS = 50
YES = "true"


@dataclass(frozen=True, slots=True)
class Rules:
    """`require`: the provider has the tag, with no values other than these. `forbid`: it has the tag, with none of
    these.

    `allow`: the names that the tenant may use (`models.routing.allowlist`); None: all. `payer`: whose budget must
    account for its calls, as shown to people; None: no budget.
    """

    require: Tags = field(default_factory=dict)
    forbid: Tags = field(default_factory=dict)
    allow: tuple[str, ...] | None = None
    payer: str | None = None

    def __bool__(self) -> bool:
        return bool(self.require or self.forbid) or self.allow is not None or self.payer is not None

    def with_budget(self, budget_usd: float | None) -> "Rules":
        """For a request in a batch with this budget; None: without one."""
        return self if budget_usd is None or self.payer is not None else replace(self, payer="the batch")

    def merged(self, *others: "Rules") -> "Rules":
        """All rules apply: a tag required by several is limited to their common values."""
        require, forbid = dict(self.require), dict(self.forbid)
        for other in others:
            for tag, values in other.require.items():
                require[tag] = _common(require[tag], values) if tag in require else values
            for tag, values in other.forbid.items():
                forbid[tag] = _ordered({*forbid.get(tag, ()), *values})
        return replace(self, require=require, forbid=forbid)

    def broken_by(self, provider: str, tags: Tags | None) -> str | None:
        """Why a provider with these tags may not be used, as the end of a sentence. None: it may.

        `tags` None: the provider is no longer configured.
        """
        said = tags or {}
        for tag, wanted in self.require.items():
            if not wanted:
                return f"require {tag}: the rules that apply have no value of it in common"
            if tag not in said or not set(said[tag]) <= set(wanted):
                return f"require {_pair(tag, wanted)}: {_what_it_says(provider, tag, said)}"
        for tag, unwanted in self.forbid.items():
            if tag not in said or set(said[tag]) & set(unwanted):
                return f"forbid {_pair(tag, unwanted)}: {_what_it_says(provider, tag, said)}"
        return None


NO_RULES = Rules()


def parse_tags(value: object) -> Tags:
    """Parse tags as written in a configuration: a table of strings, booleans and lists of strings. Raises
    ValueError, one sentence."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a table of tags, such as { region = ["eu", "ch"], zdr = true }')
    if len(value) > MAX_TAGS:
        raise ValueError(f"may have at most {MAX_TAGS} tags")
    tags: dict[str, tuple[str, ...]] = {}
    for name, given in value.items():
        tag = name.lower() if isinstance(name, str) else ""
        if not TAG_NAME.fullmatch(tag):
            raise ValueError("has an invalid tag name: use letters, digits, '_', '.' and '-', at most 64")
        if tag in tags:
            raise ValueError(f"has the tag '{tag}' twice")
        tags[tag] = _values(tag, given)
    return tags


TagTable = Annotated[Tags, BeforeValidator(parse_tags, json_schema_input_type=dict[str, bool | str | tuple[str, ...]])]
"""Tags as people write them: strings, booleans, lists of strings."""


def parse_pairs(pairs: Iterable[str]) -> Tags:
    """Parse tags as given on a command line: `region=eu,ch`, and `zdr` for `zdr=true`. Raises ValueError."""
    tags: dict[str, object] = {}
    for pair in pairs:
        name, sign, values = pair.partition("=")
        if name.strip() in tags:
            raise ValueError(f"has the tag '{name.strip()}' twice; give all its values at once, as {name}=a,b")
        tags[name.strip()] = [value.strip() for value in values.split(",")] if sign else True
    return parse_tags(tags)


def shown(tags: Tags) -> str:
    """Tags on one line for people: `region=eu,ch zdr`."""
    return " ".join(tag if values == (YES,) else f"{tag}={','.join(values)}" for tag, values in tags.items())


def _values(tag: str, given: object) -> tuple[str, ...]:
    """Lower case: whether a region is written EU or eu must not decide where data goes."""
    listed = list(given) if isinstance(given, list | tuple) else [given]
    texts = [str(each).lower() if isinstance(each, bool) else each for each in listed]
    if not texts or len(texts) > MAX_TAGS or not all(map(_is_value, texts)):
        raise ValueError(f"must set '{tag}' to a text, true, false, or a list of texts, none of them empty")
    return _ordered({str(text).strip().lower() for text in texts})


def _is_value(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text.strip()) <= MAX_VALUE_CHARS and text.isprintable()


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for value in one if value in other)


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    """Equal rules make equal chains, regardless of the order in which they were written."""
    return tuple(sorted(values))


def _pair(tag: str, values: Iterable[str]) -> str:
    return f"{tag} = {' or '.join(values)}"


def _what_it_says(provider: str, tag: str, said: Tags) -> str:
    if tag not in said:
        return f"provider '{provider}' has no tag {tag}"
    return f"provider '{provider}' has {tag} = {' and '.join(said[tag])}"
