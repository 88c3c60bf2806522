"""Which lanes a pass looks at. Pure.

Callers may give each job a chain of its own, and so have lanes by the thousand. Of each tenant some are looked at, and
the next pass goes on from there, so that a pass takes no longer however many there are.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

from understudy.models.state import Priority
from understudy.models.store.work.planning import OpenLane

MOST_LANES = 600
"""Of one tenant, shared among its batches and priorities; at least one of each."""

Group = tuple[str, Priority, str]
"""A tenant, a priority and a batch."""


class Window:
    """Remembers how far each group was looked at."""

    def __init__(self) -> None:
        self._after: dict[Group, str] = {}

    def of(self, lanes: Iterable[OpenLane]) -> list[OpenLane]:
        """The lanes to look at now; those of a group come in the order of their chains."""
        groups: dict[Group, list[OpenLane]] = {}
        for each in lanes:
            groups.setdefault((each.lane.tenant, each.lane.priority, each.lane.batch_id), []).append(each)
        of_tenant = Counter(tenant for tenant, *_ in groups)
        after, self._after = self._after, {}
        found: list[OpenLane] = []
        for group, inside in groups.items():
            most = max(MOST_LANES // of_tenant[group[0]], 1)
            if len(inside) > most:
                inside = _following(inside, after.get(group, ""), most)
                self._after[group] = inside[-1].lane.chain_id
            found += inside
        return found


def _following(lanes: list[OpenLane], after: str, most: int) -> list[OpenLane]:
    """The next ones behind a chain, and behind the last one the first."""
    lanes.sort(key=_chain)
    start = bisect_right(lanes, after, key=_chain)
    return [*lanes[start : start + most], *lanes[: max(start + most - len(lanes), 0)]]


def _chain(of: OpenLane) -> str:
    return of.lane.chain_id
