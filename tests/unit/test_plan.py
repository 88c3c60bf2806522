"""What the planner stages: priorities first, turns among equals, never more than can start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chain import Chain, Step
from models.records import Head, Lane
from models.state import Priority
from worker.plan import LaneHeads, Plan, StepOutlook, open_steps, plan


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


def test_batches_of_one_priority_take_turns() -> None:
    made = plan([lane("big", 100, ALPHA), lane("small", 2, ALPHA)], {}, 6)
    assert batches(made) == ["big", "small", "big", "small", "big", "big"]


def test_a_tenant_with_many_batches_gets_no_more_turns_than_one_with_a_single_batch() -> None:
    lanes = [lane(f"a{number}", 10, ALPHA, tenant="a") for number in range(9)] + [lane("b", 10, ALPHA, tenant="b")]
    assert batches(plan(lanes, {}, 10)).count("b") == 5


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
def test_never_over_the_room_or_the_budget_and_nobody_starves(counts: list[int], room: int, budget: int) -> None:
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
def test_a_lead_that_refused_for_longer_than_patience_holds_nobody_up_however_short_its_rests(
    cooled_for_s: float | None, starts: int, steps: list[str]
) -> None:
    outlook = {"alpha/m": StepOutlook(starts=starts, cooled_for_s=cooled_for_s, refusing_for_s=12.0)}
    assert open_steps(chain("alpha/m", "beta/m", patience_s=10), Priority.BULK, outlook) == steps
    assert open_steps(chain("alpha/m", "beta/m", patience_s=15), Priority.BULK, outlook) == steps[:-1]
    assert len(plan([lane("big", 20, chain("alpha/m", "beta/m", patience_s=10))], outlook, 10).chosen) == 10
