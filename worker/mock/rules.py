"""Which rule decides about a request. Pure except for its counters: no clock, no I/O, no random source.

A draw depends on the seed, the rule, the prompt and how often it was sent, so the same requests get the same outcome
however many connections carry them. Only `first` depends on the order of arrival, by design.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from hashlib import blake2b
from itertools import groupby
from statistics import NormalDist

from understudy.worker.mock.calls import ReceivedCall
from understudy.worker.mock.config import Lognormal, Rule, Spread, Uniform

_NORMAL = NormalDist()


def roll(seed: int, *parts: object) -> float:
    """A number in (0, 1), equal for equal arguments."""
    digest = blake2b("|".join(map(str, (seed, *parts))).encode(), digest_size=6).digest()
    return (int.from_bytes(digest) + 0.5) / (1 << 48)


def draw(spread: Spread, chance: float) -> float:
    """The value of the distribution at `chance` (0 to 1)."""
    match spread:
        case Lognormal():
            return spread.median * math.exp(spread.sigma * _NORMAL.inv_cdf(chance))
        case Uniform():
            return spread.low + (spread.high - spread.low) * chance
        case _:
            return spread


@dataclass(frozen=True, slots=True)
class Decision:
    """`rule` None: no rule fired. `chance` is this request's own draw, for its latency."""

    rule: Rule | None
    chance: float


class Rulebook:
    """The rules with their counters."""

    def __init__(self, rules: Sequence[Rule], seed: int) -> None:
        self._seed = seed
        self._groups = [_Group(members, seed) for members in _grouped(rules)]
        self._visits: dict[int, int] = {}

    def decide(self, call: ReceivedCall, elapsed_s: float) -> Decision:
        """`elapsed_s` counts from the start or the last reset."""
        identity = hash((call.provider, call.model, call.digest))
        visit = self._visits[identity] = self._visits.get(identity, 0) + 1
        who = f"{call.provider}|{call.model}|{call.digest.hex()}|{visit}"
        for group in self._groups:
            rule = group.fires(call, elapsed_s, visit, who)
            if rule is not None:
                return Decision(rule, roll(self._seed, "latency", who))
        return Decision(None, roll(self._seed, "latency", who))


def _grouped(rules: Sequence[Rule]) -> list[list[tuple[int, Rule]]]:
    """Adjacent rules with weights and equal matchers together, every other rule alone."""
    numbered = list(enumerate(rules))
    groups = groupby(numbered, key=lambda each: each[0] if each[1].weight is None else each[1].matchers)
    return [list(members) for _, members in groups]


class _Group:
    """Rules of which one is drawn; mostly a single one."""

    def __init__(self, members: list[tuple[int, Rule]], seed: int) -> None:
        self._members = members
        self._seed = seed
        self._total = sum(rule.weight or 0.0 for _, rule in members)
        self._matches = _matcher(members[0][1])
        self._between = members[0][1].between
        self._seen = dict.fromkeys((number for number, _ in members), 0)

    def fires(self, call: ReceivedCall, elapsed_s: float, visit: int, who: str) -> Rule | None:
        if self._between and not self._between[0] <= elapsed_s < self._between[1]:
            return None
        if not all(holds(call) for holds in self._matches):
            return None
        number, rule = self._drawn(who)
        self._seen[number] += 1
        if rule.first is not None and self._seen[number] > rule.first:
            return None
        if rule.first_per_prompt is not None and visit > rule.first_per_prompt:
            return None
        if rule.probability < 1.0 and roll(self._seed, "rule", number, who) >= rule.probability:
            return None
        return rule

    def _drawn(self, who: str) -> tuple[int, Rule]:
        if len(self._members) == 1:
            return self._members[0]
        point = roll(self._seed, "weight", self._members[0][0], who) * self._total
        for number, rule in self._members:
            point -= rule.weight or 0.0
            if point < 0:
                return number, rule
        return self._members[-1]


def named(pattern: str) -> Callable[[str], bool]:
    """A test for a name or glob; the common cases cost one comparison."""
    if pattern == "*":
        return lambda name: True
    if not re.search(r"[*?\[]", pattern):
        return pattern.__eq__
    matches = re.compile(translate(pattern)).match
    return lambda name: matches(name) is not None


def _matcher(rule: Rule) -> list[Callable[[ReceivedCall], bool]]:
    tests: list[Callable[[ReceivedCall], bool]] = []
    if rule.provider is not None:
        provider = named(rule.provider)
        tests.append(lambda call: provider(call.provider))
    if rule.model is not None:
        model = named(rule.model)
        tests.append(lambda call: model(call.model))
    if rule.key is not None:
        key = named(rule.key)
        tests.append(lambda call: key(call.key))
    if rule.min_bytes is not None or rule.max_bytes is not None:
        low, high = rule.min_bytes or 0, rule.max_bytes
        tests.append(lambda call: low <= call.size and (high is None or call.size <= high))
    if rule.message is not None:
        message = re.compile(rule.message).search
        tests.append(lambda call: message(call.prompt) is not None)
    return tests
