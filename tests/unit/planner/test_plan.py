"""What the planner stages: priorities first, turns among equals, never more than can start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.models.failure import FailureClass
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.limits.grants import Candidate, Deployment, Hold, Outlook
from understudy.worker.planner.outlook import StepOutlook, open_steps, over_all_credentials
from understudy.worker.planner.plan import LaneHeads, Plan, overtaking, plan


def chain(*steps: str, patience_s: float | None = None, spill: bool = False) -> Chain:
    parsed = tuple(Step(provider=name.split("/")[0], model=name.split("/")[1]) for name in steps)
    return Chain(steps=parsed, patience_s=patience_s, spill=spill)


def lane(batch: str, count: int, of: Chain, priority: Priority = Priority.BULK, tenant: str = "default") -> LaneHeads:
    heads = [Head(f"{batch}-{number:04}", 10) for number in range(count)]
    return LaneHeads(Lane(batch, tenant, of.id, priority), of, heads)


def batches(made: Plan) -> list[str]:
    return [picked.batch_id for _, picked in made.chosen]


ALPHA = chain("alpha/m")


def test_a_more_urgent_priority_is_staged_first() -> None:
    lanes = [
        lane("bulk", 5, ALPHA),
        lane("chat", 2, ALPHA, Priority.INTERACTIVE),
        lane("one", 2, ALPHA, Priority.NORMAL),
    ]
    assert batches(plan(lanes, {}, 5)) == ["chat", "chat", "one", "one", "bulk"]


def test_staged_jobs_leave_no_room_to_their_own_priority_and_all_to_more_urgent_ones() -> None:
    lanes = [
        lane("bulk", 9, ALPHA),
        lane("chat", 9, ALPHA, Priority.INTERACTIVE),
        lane("one", 9, ALPHA, Priority.NORMAL),
    ]
    assert batches(plan(lanes, {}, 5, staged={Priority.BULK: 5})) == ["chat"] * 5
    assert batches(plan(lanes, {}, 12, staged={Priority.INTERACTIVE: 5})) == ["chat"] * 7
    assert batches(plan(lanes[::2], {}, 5, staged={Priority.NORMAL: 3, Priority.BULK: 9})) == ["one"] * 2


def test_batches_of_one_priority_take_turns() -> None:
    made = plan([lane("big", 100, ALPHA), lane("small", 2, ALPHA)], {}, 6)
    assert batches(made) == ["big", "small", "big", "small", "big", "big"]


def test_a_tenant_with_many_batches_gets_no_more_turns_than_one_with_a_single_batch() -> None:
    lanes = [lane(f"a{number}", 10, ALPHA, tenant="a") for number in range(9)] + [lane("b", 10, ALPHA, tenant="b")]
    assert batches(plan(lanes, {}, 10)).count("b") == 5


def test_a_tenant_that_overtakes_enough_has_its_other_urgent_jobs_in_turn_with_bulk() -> None:
    lanes = [lane("chat", 9, ALPHA, Priority.INTERACTIVE, tenant="a"), lane("bulk", 9, ALPHA, tenant="b")]
    made = plan(lanes, {}, 10, overtaking={"a": 2})
    assert batches(made).count("bulk") == 5
    assert made.in_line == {"chat-0002", "chat-0003", "chat-0004"}
    full = plan(lanes, {}, 10, staged={Priority.BULK: 10}, overtaking={"a": 2})
    assert (batches(full), full.in_line) == (["chat", "chat"], set()), "bulk tickets leave no room to those in line"


def test_each_of_n_tenants_may_overtake_with_about_one_of_n_plus_one_slots_while_others_wait() -> None:
    assert overtaking({"a": 30}, 90, {"a": 1.0}) == {}
    assert overtaking({"a": 10}, 90, {"a": 1.0, "b": 1.0}) == {"a": 20, "b": 30}
    assert overtaking({"a": 40}, 90, {"b": 1.0}) == {"a": -10}, "none waits against whom b could be measured"
    assert overtaking({}, 90, {"a": 3.0, "b": 1.0}) == {"a": 45, "b": 15}
    assert overtaking({}, 1, {"a": 1.0, "b": 1.0}) == {"a": 1, "b": 1}


def test_a_saturated_chain_stages_nothing_and_others_go_on() -> None:
    outlook = {"alpha/m": StepOutlook(starts=0)}
    lanes = [lane("stuck", 50, ALPHA), lane("free", 3, chain("beta/m"))]
    assert batches(plan(lanes, outlook, 10)) == ["free", "free", "free"]


def test_chains_that_share_a_deployment_share_its_room() -> None:
    outlook = {"alpha/m": StepOutlook(starts=3)}
    lanes = [lane("one", 5, ALPHA), lane("two", 5, chain("alpha/m", "beta/m"))]
    assert len(plan(lanes, outlook, 10).chosen) == 3


def test_a_lead_that_cools_within_patience_is_waited_for() -> None:
    outlook = {"alpha/m": StepOutlook(cooled_for_s=5.0)}
    assert open_steps(chain("alpha/m", "beta/m", patience_s=10), Priority.BULK, outlook) == []


def test_a_lead_that_cools_beyond_patience_is_passed_over() -> None:
    outlook = {"alpha/m": StepOutlook(cooled_for_s=11.0)}
    assert open_steps(chain("alpha/m", "beta/m", patience_s=10), Priority.BULK, outlook) == ["beta/m"]


def test_a_blocked_lead_is_passed_over() -> None:
    outlook = {"alpha/m": StepOutlook(blocked=True)}
    assert open_steps(chain("alpha/m", "beta/m"), Priority.BULK, outlook) == ["beta/m"]


def test_a_chain_that_spills_uses_its_next_step_when_the_lead_is_full() -> None:
    outlook = {"alpha/m": StepOutlook(starts=2), "beta/m": StepOutlook(starts=1)}
    lanes = [lane("spill", 9, chain("alpha/m", "beta/m", spill=True)), lane("stay", 9, ALPHA)]
    assert batches(plan(lanes, outlook, 10)).count("spill") >= 1
    assert len(plan(lanes, outlook, 10).chosen) == 3


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    room=st.integers(0, 40),
    budget=st.integers(0, 60),
)
def test_never_over_the_room_or_the_budget_and_no_batch_starves(counts: list[int], room: int, budget: int) -> None:
    lanes = [lane(f"b{number}", count, ALPHA) for number, count in enumerate(counts)]
    made = plan(lanes, {"alpha/m": StepOutlook(starts=room)}, budget)
    assert len(made.chosen) == min(sum(counts), room, budget)
    assert len({head.id for head, _ in made.chosen}) == len(made.chosen)
    if len(made.chosen) >= len(counts):
        waiting = {f"b{number}" for number, count in enumerate(counts) if count}
        assert waiting <= set(batches(made))


@pytest.mark.parametrize(
    ("cooled_for_s", "starts", "steps"),
    [(5.0, 0, ["beta/m"]), (None, 1, ["alpha/m", "beta/m"])],
    ids=["it rests", "its probe is due"],
)
def test_a_primary_that_refused_for_longer_than_patience_delays_no_job_however_short_its_rests(
    cooled_for_s: float | None, starts: int, steps: list[str]
) -> None:
    outlook = {"alpha/m": StepOutlook(starts=starts, cooled_for_s=cooled_for_s, refusing_for_s=12.0)}
    assert open_steps(chain("alpha/m", "beta/m", patience_s=10), Priority.BULK, outlook) == steps
    assert open_steps(chain("alpha/m", "beta/m", patience_s=15), Priority.BULK, outlook) == steps[:-1]
    assert len(plan([lane("big", 20, chain("alpha/m", "beta/m", patience_s=10))], outlook, 10).chosen) == 10


@pytest.mark.parametrize(
    ("paced_for_s", "priority", "steps"),
    [
        (9.0, Priority.NORMAL, ["alpha/m"]),
        (10.0, Priority.NORMAL, ["alpha/m", "beta/m"]),
        (10.0, Priority.BULK, ["alpha/m"]),
        (30.0, Priority.BULK, ["alpha/m", "beta/m"]),
        (0.0, Priority.INTERACTIVE, ["alpha/m", "beta/m"]),
        (None, Priority.INTERACTIVE, ["alpha/m"]),
    ],
)
def test_a_lead_that_refusals_slow_down_for_longer_than_patience_is_helped_by_the_next_step(
    paced_for_s: float | None, priority: Priority, steps: list[str]
) -> None:
    outlook = {"alpha/m": StepOutlook(starts=2, paced_for_s=paced_for_s)}
    assert open_steps(chain("alpha/m", "beta/m"), priority, outlook) == steps
    lanes = [lane("big", 20, chain("alpha/m", "beta/m"), priority)]
    assert len(plan(lanes, outlook, 10).chosen) == (10 if len(steps) > 1 else 2)


def test_a_lead_that_refusals_slow_down_is_not_helped_where_the_chain_does_not_fall_back_on_them() -> None:
    stays = Chain(steps=chain("alpha/m", "beta/m").steps, fallback_on=frozenset({FailureClass.SERVER}))
    outlook = {"alpha/m": StepOutlook(starts=2, paced_for_s=1000.0)}
    assert open_steps(stays, Priority.BULK, outlook) == ["alpha/m"]


def test_a_lead_at_a_limit_that_was_configured_is_waited_for_however_long() -> None:
    outlook = {"alpha/m": StepOutlook(starts=0, hold=Hold.REQUESTS)}
    assert open_steps(chain("alpha/m", "beta/m", patience_s=0), Priority.BULK, outlook) == ["alpha/m"]


def test_a_step_is_slowed_down_only_while_all_of_its_credentials_are() -> None:
    paced = (Candidate(Deployment("alpha", "m", "one", "alpha:one")), Outlook(1, None, paced_for_s=40.0))
    lately = (Candidate(Deployment("alpha", "m", "two", "alpha:two")), Outlook(1, None, paced_for_s=20.0))
    free = (Candidate(Deployment("alpha", "m", "three", "alpha:three")), Outlook(5, None))
    assert over_all_credentials([paced, free]).paced_for_s is None
    assert over_all_credentials([paced, lately]).paced_for_s == 20.0
