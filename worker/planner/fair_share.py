"""Weighted fair sharing, remembered from pass to pass (stride scheduling).

Tenants take turns; within a tenant and one of its priorities its batches do, within a batch its chains: nested groups.
In a group each member has a time at which its next turn begins. The earliest goes first, and its time advances by 1 /
weight; the group's present advances by 1 / (total weight of the participants). New members, and those idle while others
continued, begin at the present: no credit. No one is more than three turns ahead of the present or behind it: no
lasting debt. In a group whose members have the weight `IN_ORDER`, the first by name gets everything it wants.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

Resource = Hashable
"""What the turns are for. Times are kept per resource: heavy use of one does not reduce the share of another."""

Path = tuple[str, ...]
"""Names from the outermost group inwards: tenant, priority, batch, chain."""

IN_ORDER = math.inf
"""The weight of members served strictly one after the other, by name."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A participant: its name and weight in each group, and how many turns it wants."""

    path: Path
    weights: tuple[float, ...]
    wants: int


@dataclass(frozen=True, slots=True)
class _Group:
    """`now` is its present, `at` when the next turns of recent participants begin; others begin at the present."""

    now: float = 0.0
    at: Mapping[str, float] = field(default_factory=dict)

    def begins(self, name: str) -> float:
        return self.at.get(name, self.now)


@dataclass(frozen=True, slots=True)
class FairShare:
    """The remembered state. A value: `after` returns the next one."""

    groups: Mapping[tuple[Resource, Path], _Group] = field(default_factory=dict)

    def in_order(self, resource: Resource, entrants: Iterable[Entrant]) -> Iterator[Entrant]:
        """Each entrant as often as it wants, in the order of turns; ties are broken by name."""
        root = _Node(self, resource, (), [each for each in entrants if each.wants > 0])
        while root.left:
            yield root.next()

    def after(self, resource: Resource, entrants: Sequence[Entrant], taken: Mapping[Path, int]) -> "FairShare":
        """The state after these turns of the participating `entrants`."""
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
        """Reduced to these members; the others are gone, and would start at the present."""
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
    """Clamp the distance from the present to less than three turns. The order of those farther away is kept, so that
    the one waiting longest is still next."""
    beyond = max(abs(turns) - 1.0, 0.0)
    return math.copysign(1.0 + beyond / (1.0 + beyond / 2.0), turns) if beyond else turns


class _Node:
    """A group with its members in a heap, or an entrant, while an order is computed. Changes nothing outside.

    Members are created when the group's turn comes: most of many groups get no turn in a pass.
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
