"""How many urgent jobs of a tenant go before those of other tenants. Pure.

Workers take what stands in a more urgent queue first, whoever put it there. That is meant for the few jobs that
somebody waits for. A tenant that would fill the slots with them while others wait gets the other tickets among theirs,
where turns say who is next, and none at once: so what a tenant calls urgent orders its own work.
"""

from collections.abc import Iterable, Mapping, Sequence

from understudy.models.records import Head, Lane
from understudy.models.state import Priority
from understudy.worker.planner.plan import LaneHeads


def overtaking(urgent: Mapping[str, int], slots: int, weights: Mapping[str, float]) -> dict[str, int]:
    """How many more jobs of each tenant may go before others' now. Tenants that are not named: any number.

    `urgent` are the jobs of each that do so already, under way or about to be. `weights` are of those that have jobs
    to start: while others wait, each of n tenants may have about 1/(n + 1) of the slots in this way, by weight, and at
    least one.
    """
    found = {}
    for tenant in {*urgent, *weights}:
        of = {tenant: 1.0, **weights}
        if len(of) > 1:
            share = of[tenant] / sum(of.values()) * len(of) / (len(of) + 1)
            found[tenant] = max(int(share * slots), 1) - urgent.get(tenant, 0)
    return found


def left_over(
    views: Iterable[LaneHeads], chosen: Sequence[tuple[Head, Lane]], weights: Mapping[str, float]
) -> set[str]:
    """The tenants of which urgent jobs found no room, while other tenants have jobs to start, too."""
    staged = {head.id for head, _ in chosen}
    return {
        view.lane.tenant
        for view in views
        if view.lane.priority < Priority.BULK
        and weights.keys() - {view.lane.tenant}
        and (view.more or any(head.id not in staged for head in view.heads))
    }
