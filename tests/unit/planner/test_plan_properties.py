"""Properties of every plan, and of many passes in a row, whatever waits and whatever may start."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, count, islice

from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.planner.fair_share import FairShare
from understudy.worker.planner.outlook import UNLIMITED, StepOutlook
from understudy.worker.planner.plan import LaneHeads, plan

ONE_PLAN = examples(60)
MANY_PASSES = examples(15)

STEPS = ("alpha/m", "beta/m", "gamma/m")


def chain(steps: Sequence[str], spill: bool = False) -> Chain:
    parsed = tuple(Step(provider=name.split("/")[0], model="m") for name in steps)
    return Chain(steps=parsed, spill=spill)


ALPHA, BETA = chain(["alpha/m"]), chain(["beta/m"])
CHAINS = [chain(steps, spill) for spill in (False, True) for n in (1, 2, 3) for steps in combinations(STEPS, n)]


def endless(
    name: str,
    of: Chain = ALPHA,
    weight: float = 1.0,
    tenant: str = "default",
    tenant_weight: float = 1.0,
    priority: Priority = Priority.BULK,
    jobs: int = 50,
) -> LaneHeads:
    """A lane that always has jobs."""
    heads = [Head(f"{name}-{number:03}", 10) for number in range(jobs)]
    return LaneHeads(Lane(name, tenant, of.id, priority), of, heads, False, weight, tenant_weight)


@st.composite
def lanes(draw: st.DrawFn) -> list[LaneHeads]:
    """Lanes of up to three tenants with up to three batches each, in any priority and with any chain."""
    names = st.tuples(*(st.integers(0, most) for most in (2, 2, len(CHAINS) - 1, 2)))
    numbers, made = count(), []
    for tenant, batch, of_number, urgency in draw(st.lists(names, max_size=8, unique=True)):
        of, priority = CHAINS[of_number], Priority(urgency)
        heads = [Head(f"job-{next(numbers)}", 10) for _ in range(draw(st.integers(0, 6)))]
        lane = Lane(f"b{tenant}{batch}", f"t{tenant}", of.id, priority)
        made.append(LaneHeads(lane, of, heads, False, 1.0 + batch, 0.5 + tenant))
    return made


rooms = st.fixed_dictionaries({step: st.one_of(st.integers(0, 8), st.just(UNLIMITED)) for step in STEPS})


def outlook_of(room: Mapping[str, int]) -> dict[str, StepOutlook]:
    return {step: StepOutlook(starts=starts) for step, starts in room.items()}


@ONE_PLAN
@given(lanes(), rooms, st.integers(0, 30))
def test_never_more_than_the_depth_nor_than_any_steps_can_start(
    waiting: list[LaneHeads], room: Mapping[str, int], depth: int
) -> None:
    chosen = plan(waiting, outlook_of(room), depth).chosen
    assert len(chosen) <= depth
    could_use = {each.lane: set(map(str, each.chain.steps)) for each in waiting}
    for size in (1, 2, 3):
        for some in combinations(STEPS, size):
            bound_to_them = sum(could_use[lane] <= set(some) for _, lane in chosen)
            assert bound_to_them <= sum(room[step] for step in some)


@ONE_PLAN
@given(lanes(), rooms, st.integers(0, 30))
def test_only_what_waits_in_its_lane_each_once_and_the_oldest_first(
    waiting: list[LaneHeads], room: Mapping[str, int], depth: int
) -> None:
    chosen = plan(waiting, outlook_of(room), depth).chosen
    for each in waiting:
        mine = [head for head, lane in chosen if lane == each.lane]
        assert mine == list(each.heads[: len(mine)])
    assert {lane for _, lane in chosen} <= {each.lane for each in waiting}
    assert len({head.id for head, _ in chosen}) == len(chosen)


@ONE_PLAN
@given(lanes(), rooms, st.integers(1, 30))
def test_no_room_is_left_while_a_job_for_it_waits(
    waiting: list[LaneHeads], room: Mapping[str, int], depth: int
) -> None:
    """For lanes whose chains have one step, so that it is clear which room they use."""
    waiting = [each for each in waiting if len(each.chain.steps) == 1]
    chosen = plan(waiting, outlook_of(room), depth).chosen
    if len(chosen) < depth:
        for step in STEPS:
            here = [each for each in waiting if str(each.chain.steps[0]) == step]
            staged = sum(lane in {each.lane for each in here} for _, lane in chosen)
            assert staged == min(room[step], sum(len(each.heads) for each in here))


@ONE_PLAN
@given(lanes(), rooms, st.integers(0, 30))
def test_a_tenants_lower_priority_gets_nothing_that_its_higher_one_could_use(
    waiting: list[LaneHeads], room: Mapping[str, int], depth: int
) -> None:
    waiting = [each for each in waiting if each.lane.tenant == "t1"]
    urgent = [each for each in waiting if each.lane.priority is Priority.INTERACTIVE]
    alone = plan(urgent, outlook_of(room), depth).chosen
    together = plan(waiting, outlook_of(room), depth).chosen
    assert together[: len(alone)] == alone


@ONE_PLAN
@given(lanes(), rooms, st.integers(0, 30), st.data())
def test_what_a_tenant_calls_urgent_takes_nothing_from_another(
    waiting: list[LaneHeads], room: Mapping[str, int], depth: int, data: st.DataObject
) -> None:
    """Whatever priority the others' jobs have, it starts the same number.

    For lanes whose chains have one step, so that it is clear which room they use.
    """

    def called_otherwise(each: LaneHeads) -> LaneHeads:
        batch = f"{each.lane.batch_id}-{each.lane.priority}"  # two lanes stay two lanes
        return replace(each, lane=replace(each.lane, batch_id=batch, priority=data.draw(st.sampled_from(Priority))))

    waiting = [each for each in waiting if len(each.chain.steps) == 1]
    others = [each if each.lane.tenant == "t1" else called_otherwise(each) for each in waiting]
    before, after = (
        sum(lane.tenant == "t1" for _, lane in plan(either, outlook_of(room), depth).chosen)
        for either in (waiting, others)
    )
    assert before == after


@ONE_PLAN
@given(lanes(), rooms, st.integers(0, 30), st.sampled_from(Priority))
def test_jobs_that_were_not_read_get_the_turns_that_they_will_use(
    waiting: list[LaneHeads], room: Mapping[str, int], depth: int, priority: Priority
) -> None:
    """Reading only what is requested gives the plan that reading everything would have given, where it is clear at
    which step each job will start, and all have the same priority: for one pass, an unread lane may keep more starts
    for less urgent jobs than it has jobs."""
    single = [each for each in waiting if len(each.chain.steps) == 1]
    all_read = {lane: replace(each, lane=lane) for each in single for lane in [replace(each.lane, priority=priority)]}
    waiting = list(all_read.values())
    seen = {lane: LaneHeads(lane, each.chain, (), True, each.batch_weight, each.tenant_weight)
            for lane, each in all_read.items()}  # fmt: skip
    for _ in range(100):
        made = plan(seen.values(), outlook_of(room), depth)
        if not made.unread:
            break
        for lane, more in made.unread.items():
            upto = len(seen[lane].heads) + more
            heads = all_read[lane].heads[:upto]
            each = seen[lane]
            seen[lane] = LaneHeads(lane, each.chain, heads, len(heads) == upto, each.batch_weight, each.tenant_weight)
    assert made.chosen == plan(waiting, outlook_of(room), depth).chosen
    read = sum(len(each.heads) for each in seen.values())
    assert read <= sum(len(each.heads) for each in waiting)


def passes(
    waiting: Sequence[LaneHeads], room: Mapping[str, int] | None = None, depth: int = 100
) -> Iterator[list[str]]:
    """The batches that are staged in each of many passes."""
    turns = FairShare()
    while True:
        made = plan(waiting, outlook_of(room or {}), depth, turns)
        turns = made.turns
        yield [lane.batch_id for _, lane in made.chosen]


def shares(waiting: Sequence[LaneHeads], times: int, room: Mapping[str, int], depth: int = 100) -> Counter[str]:
    return Counter(batch for staged in islice(passes(waiting, room, depth), times) for batch in staged)


weights = st.floats(0.1, 10.0)


@MANY_PASSES
@given(st.lists(weights, min_size=1, max_size=8), st.integers(1, 3))
def test_with_room_for_few_each_batch_gets_its_share_by_weight(of: list[float], room: int) -> None:
    waiting = [endless(f"b{number}", weight=weight) for number, weight in enumerate(of)]
    got = shares(waiting, 400, {"alpha/m": room})
    for number, weight in enumerate(of):
        assert abs(got[f"b{number}"] - 400 * room * weight / sum(of)) <= 3


@MANY_PASSES
@given(st.lists(weights, min_size=2, max_size=4), st.integers(1, 4))
def test_tenants_share_by_their_weights_however_many_batches_they_have(of: list[float], batches: int) -> None:
    waiting = [
        endless(f"b{number}-{batch}", tenant=f"t{number}", tenant_weight=weight)
        for number, weight in enumerate(of)
        for batch in range(batches if number else 1)
    ]
    got = shares(waiting, 400, {"alpha/m": 1})
    for number, weight in enumerate(of):
        mine = sum(times for batch, times in got.items() if batch.startswith(f"b{number}-"))
        assert abs(mine - 400 * weight / sum(of)) <= 3


@MANY_PASSES
@given(st.integers(1, 5), st.integers(0, 3), st.data())
def test_no_batch_starves_whatever_room_there_is_from_pass_to_pass(
    one_step: int, two_steps: int, data: st.DataObject
) -> None:
    """Some batches use one step, some have lanes at two, and what may start changes all the time."""
    waiting = [endless(f"a{number}") for number in range(one_step)]
    waiting += [endless(f"c{number}", of) for number in range(two_steps) for of in (ALPHA, BETA)]
    turns, since = FairShare(), Counter[tuple[str, str]]()
    for _ in range(120):
        room = {"alpha/m": data.draw(st.integers(0, 2)), "beta/m": data.draw(st.sampled_from([0, 3, UNLIMITED]))}
        made = plan(waiting, outlook_of(room), data.draw(st.integers(1, 6)), turns)
        turns = made.turns
        staged = {(lane.batch_id, lane.chain_id) for _, lane in made.chosen}
        served = sum(lane.chain_id == ALPHA.id for _, lane in made.chosen)
        for each in waiting:
            if each.chain is ALPHA:
                name = (each.lane.batch_id, each.lane.chain_id)
                since[name] = 0 if name in staged else since[name] + served
                assert since[name] <= 3 * (one_step + two_steps)


@MANY_PASSES
@given(st.sampled_from(Priority), st.sampled_from(Priority), st.integers(1, 3), st.integers(0, 2))
def test_tenants_share_a_step_and_the_depth_whatever_they_call_urgent(
    mine: Priority, theirs: Priority, narrow: int, bulk: int
) -> None:
    waiting = [endless("mine", tenant="a", priority=mine), endless("theirs", tenant="b", priority=theirs)]
    waiting += [endless(f"bulk{number}", tenant="b") for number in range(bulk)]
    for got in (shares(waiting, 400, {"alpha/m": narrow}), shares(waiting, 400, {}, depth=narrow)):
        assert abs(got["mine"] - 200 * narrow) <= 3


def test_one_who_is_far_ahead_elsewhere_still_gets_a_share_at_a_full_step() -> None:
    """A tenant that starts thousands of jobs at another provider does not come last here."""
    waiting = [
        endless("here", tenant="patient"),
        endless("there-too", tenant="busy"),
        endless("there", BETA, tenant="busy"),
    ]
    got = shares(waiting, 100, {"alpha/m": 1, "beta/m": UNLIMITED}, depth=20)
    assert (got["here"], got["there-too"]) == (50, 50)


@MANY_PASSES
@given(st.integers(1, 5), st.integers(0, 50))
def test_a_new_small_batch_gets_its_turn_at_once(others: int, passed: int) -> None:
    big = [endless(f"big{number}") for number in range(others)]
    turns = FairShare()
    for _ in range(passed):
        turns = plan(big, outlook_of({"alpha/m": 1}), 100, turns).turns
    small = endless("small", jobs=3)
    order: list[str] = []
    for _ in range(2 * others + 2):
        made = plan([*big, small], outlook_of({"alpha/m": 1}), 100, turns)
        turns = made.turns
        order += [lane.batch_id for _, lane in made.chosen]
    assert "small" in order[: others + 1]
    assert order.count("small") >= 2, "and then one in each round"


def test_a_stream_of_new_batches_does_not_starve_the_old_one() -> None:
    turns, old = FairShare(), 0
    for number in range(200):
        made = plan([endless("old"), endless(f"new{number:03}", jobs=1)], outlook_of({"alpha/m": 1}), 100, turns)
        turns = made.turns
        old += made.chosen[0][1].batch_id == "old"
    assert 90 <= old <= 110


def test_who_was_idle_has_no_credit_and_who_was_alone_no_debt() -> None:
    turns = FairShare()
    for _ in range(1000):
        turns = plan([endless("busy")], outlook_of({"alpha/m": 1}), 100, turns).turns
    order: list[str] = []
    for _ in range(20):
        made = plan([endless("back"), endless("busy")], outlook_of({"alpha/m": 1}), 100, turns)
        turns = made.turns
        order += [lane.batch_id for _, lane in made.chosen]
    assert order.count("back") == order.count("busy") == 10


@ONE_PLAN
@given(st.integers(1, 60), st.integers(1, 30))
def test_a_saturated_chain_stages_nothing_and_takes_no_depth_from_others(depth: int, saturated: int) -> None:
    stuck = [endless(f"stuck{number}", tenant=f"t{number}") for number in range(saturated)]
    free = endless("free", BETA, jobs=60)
    assert plan([*stuck, free], outlook_of({"alpha/m": 0}), depth).chosen == plan([free], {}, depth).chosen


def test_what_is_remembered_stays_small() -> None:
    turns = FairShare()
    for number in range(500):
        waiting = [endless("old"), *(endless(f"n{number}-{other}", tenant=f"t{number}", jobs=2) for other in range(5))]
        turns = plan(waiting, outlook_of({"alpha/m": 3}), 100, turns).turns
    assert sum(len(group.at) for group in turns.groups.values()) < 50


@MANY_PASSES
@given(st.integers(5, 12), st.integers(1, 4), st.integers(10, 60))
def test_lanes_of_which_only_some_can_be_read_in_a_pass_all_get_their_turn(many: int, read: int, depth: int) -> None:
    turns, staged = FairShare(), Counter[str]()
    for _ in range(2 * many):
        seen = {f"b{number:02}": endless(f"b{number:02}", jobs=200) for number in range(many)}
        unread = {name: replace(each, heads=(), more=True) for name, each in seen.items()}
        first = plan(unread.values(), {}, depth, turns)
        for lane in islice(first.unread, read):
            unread[lane.batch_id] = seen[lane.batch_id]
        made = plan(unread.values(), {}, depth, turns)
        turns = made.turns
        staged.update(lane.batch_id for _, lane in made.chosen)
    assert set(staged) == {f"b{number:02}" for number in range(many)}
    assert max(staged.values()) <= 4 * min(staged.values())
