"""Whose turn it is, with weights, remembered from pass to pass (stride scheduling).

Tenants take turns, within a tenant and one of its priorities its batches, within a batch its chains: groups, one
inside the other. In a group each member has a time at which its next turn begins. The earliest goes first, and its time
moves on by 1 / weight; the group's present moves on by 1 / (the weights of all who take part). Who comes new, or was
idle while others went on, begins at the present: no credit. Nobody is three turns ahead of the present or behind it: no
debt that lasts. A group whose members weigh `IN_ORDER` has no turns: the first by name has all that it wants.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

Resource = Hashable
"""What the turns are for. Each has its own times: who used much of one has no less of another."""

Path = tuple[str, ...]
"""Names from the outermost group inwards: tenant, priority, batch, chain."""

IN_ORDER = math.inf
"""The weight of members that go one after the other, by name."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """Who takes part: its name and weight in each group, and how many turns it wants."""

    path: Path
    weights: tuple[float, ...]
    wants: int


@dataclass(frozen=True, slots=True)
class _Group:
    """`now` is its present, `at` when the next turns of those begin who took part; others begin at the present."""

    now: float = 0.0
    at: Mapping[str, float] = field(default_factory=dict)

    def begins(self, name: str) -> float:
        return self.at.get(name, self.now)


@dataclass(frozen=True, slots=True)
class FairShare:
    """What is remembered. A value: `after` gives the next one."""

    groups: Mapping[tuple[Resource, Path], _Group] = field(default_factory=dict)

    def in_order(self, resource: Resource, entrants: Iterable[Entrant]) -> Iterator[Entrant]:
        """Each entrant as often as it wants, in the order of their turns; among equals the first by name."""
        root = _Node(self, resource, (), [each for each in entrants if each.wants > 0])
        while root.left:
            yield root.next()

    def after(self, resource: Resource, entrants: Sequence[Entrant], taken: Mapping[Path, int]) -> "FairShare":
        """These turns were taken, of `entrants` who took part."""
        weights: dict[Path, dict[str, float]] = {}
        counts: dict[Path, Counter[str]] = {}
        for each in entrants:
            for level, (name, weight) in enumerate(zip(each.path, each.weights, strict=True)):
                weights.setdefault(each.path[:level], {})[name] = weight
                counts.setdefault(each.path[:level], Counter())[name] += taken.get(each.path, 0)
        moved = {
            (resource, path): _moved(self.groups.get((resource, path), _Group()), weights[path], counts[path])
            for path in weights
            if counts[path].total() and IN_ORDER not in weights[path].values()
        }
        return FairShare({**self.groups, **moved})

    def of(self, paths: Iterable[Path]) -> "FairShare":
        """Only what concerns these members; the others are gone, and would begin anew."""
        kept = {path[:level] for path in paths for level in range(len(path))}
        return FairShare({key: group for key, group in self.groups.items() if key[1] in kept})


def _moved(group: _Group, weights: Mapping[str, float], counts: Counter[str]) -> _Group:
    now = group.now + counts.total() / sum(weights.values())
    at = dict(group.at)
    for name, weight in weights.items():
        begins = group.begins(name) + counts[name] / weight
        at[name] = now + _bounded((begins - now) * weight) / weight
    return _Group(now, {name: begins for name, begins in at.items() if name in weights or begins > now})


def _bounded(turns: float) -> float:
    """How far somebody is from the present: less than three turns. The order of those who are farther is kept, so that
    who waits longest is still the next."""
    beyond = max(abs(turns) - 1.0, 0.0)
    return math.copysign(1.0 + beyond / (1.0 + beyond / 2.0), turns) if beyond else turns


class _Node:
    """A group with its members in a heap, or an entrant, while an order is made. Changes nothing outside.

    Members are made when it is the group's turn: most groups of many never have one in a pass.
    """

    __slots__ = ("_heap", "_inside", "_of", "left")

    def __init__(self, turns: FairShare, resource: Resource, path: Path, entrants: Sequence[Entrant]) -> None:
        self._of = turns, resource, path
        self._inside = entrants
        self._heap: list[tuple[float, int, float, _Node]] | None = None
        self.left = sum(each.wants for each in entrants)

    def next(self) -> Entrant:
        self.left -= 1
        first = self._inside[0]
        if len(first.path) == len(self._of[2]):
            return first
        if self._heap is None:
            self._heap = self._members()
        begins, place, weight, node = self._heap[0]
        entrant = node.next()
        if node.left:
            heapreplace(self._heap, (begins + 1 / weight, place, weight, node))
        else:
            heappop(self._heap)
        return entrant

    def _members(self) -> "list[tuple[float, int, float, _Node]]":
        turns, resource, path = self._of
        level = len(path)
        members: dict[str, list[Entrant]] = {}
        for each in self._inside:
            members.setdefault(each.path[level], []).append(each)
        group = turns.groups.get((resource, path), _Group())
        heap = [
            (group.begins(name), place, inside[0].weights[level], _Node(turns, resource, (*path, name), inside))
            for place, (name, inside) in enumerate(sorted(members.items()))
        ]
        heapify(heap)
        return heap
