"""How many urgent jobs of a tenant may go before other tenants' jobs. Pure.

Workers serve more urgent queues first, regardless of the tenant. That is meant for the few jobs that a client waits
for. A tenant that would fill the slots with urgent jobs while others wait gets its remaining tickets among theirs, by
fair share, and none immediately: what a tenant calls urgent then orders only its own work.
"""

from collections.abc import Iterable, Mapping, Sequence

from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.planner.plan import LaneHeads


def overtaking(urgent: Mapping[str, int], slots: int, weights: Mapping[str, float]) -> dict[str, int]:
    """How many more jobs of each tenant may now go before others'. Tenants not listed: unlimited.

    `urgent` are each tenant's jobs that already do so, running or about to start. `weights` are those of the tenants
    with jobs to start: while others wait, each of n tenants may use about 1/(n + 1) of the slots this way, by weight,
    and at least one.
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
    """The tenants whose urgent jobs found no room, while other tenants have jobs to start, too."""
    staged = {head.id for head, _ in chosen}
    return {
        view.lane.tenant
        for view in views
        if view.lane.priority < Priority.BULK
        and weights.keys() - {view.lane.tenant}
        and (view.more or any(head.id not in staged for head in view.heads))
    }
