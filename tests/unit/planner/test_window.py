"""Lanes by the thousand: a pass looks at some lanes of each tenant, and each lane has its turn."""

from collections import Counter

from understudy.models.jobs.submission import SINGLE
from understudy.models.state import Priority
from understudy.models.store.work.planning import Lane, OpenLane
from understudy.worker.planner.window import MOST_LANES, Window


def lanes(tenant: str, count: int, batch: str = SINGLE, priority: Priority = Priority.NORMAL) -> list[OpenLane]:
    return [OpenLane(Lane(batch, tenant, f"chn_{number:05}", priority), 1) for number in range(count)]


def test_few_lanes_are_all_looked_at() -> None:
    every = [*lanes("acme", MOST_LANES), *lanes("rival", MOST_LANES)]
    assert Window().of(every) == every


def test_of_many_all_are_looked_at_one_after_the_other() -> None:
    window, many = Window(), lanes("rival", 5 * MOST_LANES + 7)
    seen = Counter(each.lane for _ in range(6) for each in window.of(reversed(many)))
    assert seen.keys() == {each.lane for each in many}
    assert seen.total() == 6 * MOST_LANES and set(seen.values()) == {1, 2}


def test_lanes_that_end_meanwhile_hold_nothing_up() -> None:
    window, many = Window(), lanes("rival", 4 * MOST_LANES)
    seen: set[Lane] = set()
    while many:
        now = window.of(many)
        assert 0 < len(now) <= MOST_LANES
        seen |= {each.lane for each in now}
        many = [each for each in many if each.lane not in {one.lane for one in now[::2]}]
    assert len(seen) == 4 * MOST_LANES


def test_a_tenants_priorities_and_batches_share_its_part_and_others_lose_nothing() -> None:
    crowd = [
        *lanes("rival", 5_000),
        *lanes("rival", 5_000, "batch_1", Priority.BULK),
        *lanes("rival", 2, priority=Priority.INTERACTIVE),
        *lanes("acme", 3, "batch_2", Priority.BULK),
    ]
    seen = Counter((each.lane.tenant, each.lane.priority) for each in Window().of(crowd))
    assert seen == {
        ("rival", Priority.NORMAL): MOST_LANES // 3,
        ("rival", Priority.BULK): MOST_LANES // 3,
        ("rival", Priority.INTERACTIVE): 2,
        ("acme", Priority.BULK): 3,
    }


def test_of_a_thousand_batches_each_has_one_lane_in_view() -> None:
    many = [lane for number in range(1_000) for lane in lanes("rival", 3, f"batch_{number}", Priority.BULK)]
    assert len(Window().of(many)) == 1_000
