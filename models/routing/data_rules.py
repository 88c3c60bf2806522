"""Rules of a request: what providers must be tagged with, and what they must not, to be sent it; and what its tenant
may use.

Closed on doubt: a provider that does not carry a tag has not said what a rule about it asks, so it is not asked
either. One that names several values may use any of them, so each must be allowed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from understudy.models.routing.chain import Chain, Tags

TAG_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
MAX_VALUE_CHARS = 64
MAX_TAGS = 50
YES = "true"


@dataclass(frozen=True, slots=True)
class Rules:
    """`require`: a provider has the tag, with none but these values. `forbid`: it has the tag, with none of these.

    `allow`: the names that its tenant may use (`models.routing.allowlist`); None: all. `payer`: whose budget must see
    what its calls cost, as people name it; None: nobody's.
    """

    require: Tags = field(default_factory=dict)
    forbid: Tags = field(default_factory=dict)
    allow: tuple[str, ...] | None = None
    payer: str | None = None

    def __bool__(self) -> bool:
        return bool(self.require or self.forbid) or self.allow is not None or self.payer is not None

    def with_budget(self, budget_usd: float | None) -> "Rules":
        """The request belongs to a batch with this budget; None: with none."""
        return self if budget_usd is None or self.payer is not None else replace(self, payer="the batch")

    def merged(self, *others: "Rules") -> "Rules":
        """All data rules hold: what is required by several is what they have in common."""
        require, forbid = dict(self.require), dict(self.forbid)
        for other in others:
            for tag, values in other.require.items():
                require[tag] = _common(require[tag], values) if tag in require else values
            for tag, values in other.forbid.items():
                forbid[tag] = _ordered({*forbid.get(tag, ()), *values})
        return replace(self, require=require, forbid=forbid)

    def broken_by(self, provider: str, tags: Tags | None) -> str | None:
        """Why a provider with these tags may not be asked, as the end of a sentence. None: it may.

        `tags` None: the provider is not configured any more.
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


def rules_of(chain: Chain) -> Rules:
    return Rules(chain.require, chain.forbid)


def parse_tags(value: object) -> Tags:
    """Tags as people write them: a table of texts, booleans and lists of texts. Raises ValueError, one sentence."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a table of tags, such as { region = ["eu", "ch"], zdr = true }')
    if len(value) > MAX_TAGS:
        raise ValueError(f"may name {MAX_TAGS} tags at most")
    tags: dict[str, tuple[str, ...]] = {}
    for name, given in value.items():
        tag = name.lower() if isinstance(name, str) else ""
        if not TAG_NAME.fullmatch(tag):
            raise ValueError("has a tag whose name is not made of letters, digits, '_', '.' and '-', 64 at most")
        if tag in tags:
            raise ValueError(f"names the tag '{tag}' twice")
        tags[tag] = _values(tag, given)
    return tags


def parse_pairs(pairs: Iterable[str]) -> Tags:
    """Tags as a command line says them: `region=eu,ch`, and `zdr` for `zdr=true`. Raises ValueError."""
    tags: dict[str, object] = {}
    for pair in pairs:
        name, sign, values = pair.partition("=")
        if name.strip() in tags:
            raise ValueError(f"names the tag '{name.strip()}' twice; write all its values at once, as {name}=a,b")
        tags[name.strip()] = [value.strip() for value in values.split(",")] if sign else True
    return parse_tags(tags)


def shown(tags: Tags) -> str:
    """Tags in one line for people: `region=eu,ch zdr`."""
    return " ".join(tag if values == (YES,) else f"{tag}={','.join(values)}" for tag, values in tags.items())


def _values(tag: str, given: object) -> tuple[str, ...]:
    """In lower case: whether a region is written EU or eu must not decide where data goes."""
    listed = list(given) if isinstance(given, list | tuple) else [given]
    texts = [str(each).lower() if isinstance(each, bool) else each for each in listed]
    if not texts or len(texts) > MAX_TAGS or not all(map(_is_value, texts)):
        raise ValueError(f"must give '{tag}' a text, true, false, or a list of texts, none of them empty")
    return _ordered({str(text).strip().lower() for text in texts})


def _is_value(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text.strip()) <= MAX_VALUE_CHARS and text.isprintable()


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for value in one if value in other)


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    """Equal rules make equal chains, in whatever order they were written."""
    return tuple(sorted(values))


def _pair(tag: str, values: Iterable[str]) -> str:
    return f"{tag} = {' or '.join(values)}"


def _what_it_says(provider: str, tag: str, said: Tags) -> str:
    if tag not in said:
        return f"provider '{provider}' does not say its {tag}"
    return f"provider '{provider}' says {tag} = {' and '.join(said[tag])}"
