"""What the planner stages while money lasts, and what it reports as out of money."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import Balance, BudgetKey, amount, of_batch, of_provider, of_tenant, reached
from understudy.models.jobs.submission import SINGLE
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.planner.affordability import Affordability
from understudy.worker.planner.outlook import StepOutlook, open_steps
from understudy.worker.planner.plan import LaneHeads, plan

NOVEMBER_26 = 1795651200.0
ALPHA = Step(provider="alpha", model="m")
ALPHA_TODAY = BudgetKey("provider", "alpha", "2026-11-26")
ACME = of_tenant("acme", NOVEMBER_26)


def lane(batch: str, costs: list[float], *steps: str, tenant: str = "acme", label: str = "") -> LaneHeads:
    """A lane of jobs that each cost this many cents at every step, and ten times as much at beta."""
    parsed = tuple(Step(provider=name, model="m") for name in steps or ("alpha",))
    of = Chain(steps=parsed)
    heads = [Head(f"{batch}{label}-{number:03}", round(cents * 100)) for number, cents in enumerate(costs)]
    return LaneHeads(Lane(batch, tenant, of.id, Priority.BULK), of, heads)


def cost(_: LaneHeads, step: Step, head: Head) -> float:
    return head.tokens / 10_000 * (10 if step.provider == "beta" else 1)


def affordability(balances: dict[BudgetKey, Balance], staged: dict[BudgetKey, float] | None = None) -> Affordability:
    return Affordability(balances, cost, staged)


def staged(lanes: list[LaneHeads], money: Affordability, outlook: dict[str, StepOutlook] | None = None) -> Counter[str]:
    seen = money.pass_over_spent(outlook or {})
    return Counter(each.batch_id for _, each in plan(money.payable(lanes, seen), seen, 1000).chosen)


def next_pass(money: Affordability) -> Affordability:
    """The state after one pass, which the next one uses for prices."""
    return Affordability(money.balances, cost, None, money.cheapest)


def test_no_more_is_staged_than_the_budget_pays() -> None:
    money = affordability({of_batch("b"): Balance(0.10, 0.02, 0.03)}, {of_batch("b"): 0.01})
    assert staged([lane("b", [1] * 50), lane("free", [1] * 7)], money) == {"b": 4, "free": 7}


def test_batches_of_a_tenant_share_its_month() -> None:
    assert staged([lane("a", [1] * 50), lane("b", [1] * 50)], affordability({ACME: Balance(0.06, 0.0)})) == {
        "a": 3,
        "b": 3,
    }


def test_a_provider_that_spent_its_day_is_passed_over_for_the_next_step() -> None:
    lanes, outlook = [lane("b", [1] * 5, "alpha", "beta")], {"alpha/m": StepOutlook(), "beta/m": StepOutlook()}
    money = affordability({ALPHA_TODAY: Balance(1.0, 0.995)})
    assert staged(lanes, money, outlook) == {}
    money = next_pass(money)
    seen = money.pass_over_spent(outlook)
    assert open_steps(lanes[0].chain, Priority.BULK, seen) == ["beta/m"]
    assert seen["alpha/m"].why is not None and seen["alpha/m"].why.startswith("provider alpha has spent 0.995 of 1.00")
    assert staged(lanes, money, outlook) == {"b": 5}


def test_an_expensive_job_at_the_head_does_not_keep_others_from_what_a_provider_has_left() -> None:
    lanes, outlook = [lane("b", [60, 1, 1, 1])], {"alpha/m": StepOutlook()}
    money = affordability({ALPHA_TODAY: Balance(1.0, 0.5)})
    assert staged(lanes, money, outlook) == {"b": 3}
    assert staged(lanes, next_pass(money), outlook) == {"b": 3}


def test_a_provider_whose_calls_under_way_hold_the_rest_is_waited_for() -> None:
    lanes, outlook = [lane("b", [1] * 5, "alpha", "beta")], {"alpha/m": StepOutlook(), "beta/m": StepOutlook()}
    money = affordability({ALPHA_TODAY: Balance(1.0, 0.5, 0.5)})
    assert staged(lanes, money, outlook) == {}
    assert staged(lanes, next_pass(money), outlook) == {}


def test_a_lane_without_money_takes_no_turns_from_others() -> None:
    lanes = [lane("broke", [1] * 50), lane("rich", [1] * 50)]
    money, outlook = affordability({of_batch("broke"): Balance(0.01, 0.01)}), {"alpha/m": StepOutlook(starts=10)}
    assert staged(lanes, money, outlook) == {"rich": 10}


def test_a_batch_whose_jobs_cost_more_than_is_left_is_out_of_money() -> None:
    lanes = [lane("b", [3, 2]), lane("rich", [3, 2])]
    money = affordability({of_batch("b"): Balance(0.10, 0.085), of_batch("rich"): Balance(0.10, 0.08, 0.02)})
    assert list(money.spent_batches(lanes, {})) == [(of_batch("b"), pytest.approx(0.02))]


def test_a_lane_that_spills_stays_at_its_primary_when_the_next_step_is_too_expensive() -> None:
    view = lane("b", [1] * 5, "alpha", "beta")
    view = replace(view, chain=view.chain.model_copy(update={"spill": True}))
    money = affordability({of_batch("b"): Balance(0.10, 0.065)})
    assert staged([view], money, {"alpha/m": StepOutlook(starts=2)}) == {"b": 2}
    assert not list(money.spent_batches([view], {}))
    assert staged([view], affordability({of_batch("b"): Balance(0.30, 0.0)}), {"alpha/m": StepOutlook(starts=2)}) == {
        "b": 3
    }
    assert staged([view], affordability({of_batch("b"): Balance(0.10, 0.095)})) == {}, (
        "what costs less comes after the lead"
    )


def test_what_a_job_would_cost_is_asked_at_the_step_that_it_would_use() -> None:
    money = affordability({of_batch("b"): Balance(0.10, 0.05)})
    lanes = [lane("b", [1], "alpha", "beta")]
    assert not list(money.spent_batches(lanes, {}))
    assert list(money.spent_batches(lanes, {"alpha/m": StepOutlook(blocked=True)})) == [
        (of_batch("b"), pytest.approx(0.1))
    ]


@pytest.mark.parametrize(
    "batch, priority, balance, count",
    [
        (SINGLE, Priority.INTERACTIVE, Balance(1.0, 1.0), 2),
        (SINGLE, Priority.INTERACTIVE, Balance(1.0, 0.5, 0.5), 0),  # what calls in flight reserve may come back
        (SINGLE, Priority.NORMAL, Balance(1.0, 1.0), 0),
        ("b", Priority.INTERACTIVE, Balance(1.0, 1.0), 0),
    ],
)
def test_a_single_job_with_a_waiting_caller_is_staged_without_money_so_that_its_worker_ends_it(
    batch: str, priority: Priority, balance: Balance, count: int
) -> None:
    view = lane(batch, [1, 1])
    view = replace(view, lane=replace(view.lane, priority=priority))
    assert staged([view], affordability({ACME: balance})).total() == count


def test_why_a_lane_waits_for_money_is_said() -> None:
    spent = affordability({ACME: Balance(10.0, 9.999)}).reason(lane("b", [1]), {})
    assert spent == Waiting(
        "tenant acme has spent 10.00 of 10.00 USD this month, and the next job would cost about 0.01; "
        "resumes 1 December (UTC) or with `understudy resume tenant:acme`",
        "budget",
    )
    small = affordability({ACME: Balance(0.000004, 0.0)}).reason(lane("b", [1]), {})
    assert small == Waiting(
        "tenant acme may spend 0.000004 USD this month, less than the 0.01 that its next job would cost; "
        "raise the budget, or grant it again with `understudy resume tenant:acme`",
        "budget",
    )
    held = affordability({ACME: Balance(10.0, 9.0, 1.0)}).reason(lane("b", [1]), {})
    assert held == Waiting("calls in flight reserve the rest of the budget of tenant:acme, 10.00 USD", "turn")
    assert affordability({ACME: Balance(10.0, 9.0)}).reason(lane("b", [1]), {}) is None


@given(
    lanes=st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 40), max_size=12), st.booleans()),
        max_size=6,
        unique_by=lambda each: (each[0], each[2]),  # a batch has one lane for each of its chains
    ),
    rooms=st.tuples(*[st.integers(0, 200)] * 4),
    starts=st.integers(0, 30),
)
def test_staged_estimates_never_exceed_a_balance_and_no_job_that_can_be_paid_is_left_out(
    lanes: list[tuple[str, list[int], bool]], rooms: tuple[int, ...], starts: int
) -> None:
    month = BudgetKey("provider", "alpha", "2026-11")
    subjects = [of_batch("a"), ACME, ALPHA_TODAY, month]
    balances = {each: Balance(room / 100, 0.0) for each, room in zip(subjects, rooms, strict=True)}
    views = [
        lane(batch, list(map(float, costs)), *(["alpha", "beta"][: 1 + two]), label=str(number))
        for number, (batch, costs, two) in enumerate(lanes)
    ]
    money, outlook = affordability(balances), {"alpha/m": StepOutlook(starts=starts)}
    chosen = plan(money.payable(views, outlook), outlook, 1000).chosen
    drawn: Counter[BudgetKey] = Counter()
    for head, of in chosen:
        usd = cost(views[0], ALPHA, head)
        drawn.update({each: usd for each in subjects if each != of_batch("a") or of.batch_id == "a"})
    assert all(drawn[subject] <= balance.limit_usd + 1e-9 for subject, balance in balances.items())
    assert len(chosen) <= starts
    if len(chosen) < starts:
        left = {subject: balance.limit_usd - drawn[subject] for subject, balance in balances.items()}
        taken = {head.id for head, _ in chosen}
        for view in views:
            own = [each for each in subjects if each != of_batch("a") or view.lane.batch_id == "a"]
            for head in view.heads:
                usd = cost(view, view.chain.steps[0], head)
                assert head.id in taken or any(usd > left[each] - 1e-9 for each in own)


@pytest.mark.parametrize(
    "usd, said",
    [
        (10, "10.00"),
        (1234.5, "1,234.50"),
        (0.01, "0.01"),
        (0.0098, "0.0098"),
        (0.5, "0.50"),
        (0, "0.00"),
        (4.12e-05, "0.000041"),
    ],
)
def test_amounts_are_said_with_the_digits_that_matter(usd: float, said: str) -> None:
    assert amount(usd) == said


def test_a_day_and_a_month_of_a_provider_are_told_apart() -> None:
    settings = Settings.model_validate(
        {"providers": {"alpha": {"budget_usd_per_day": 1, "budget_usd_per_month": 20}, "beta": {}}}
    )
    day, month = of_provider(settings, "alpha", NOVEMBER_26 - 1)
    assert (day.period, day.days, month.period, month.days) == (
        "2026-11-25",
        (20782, 20783),
        "2026-11",
        (20758, 20788),
    )
    assert "today, and the next job would cost about 0.10; resumes 26 November (UTC)" in reached(
        day, Balance(1.0, 1.0), 0.1
    )
    assert "this month; resumes 1 December (UTC)" in reached(month, Balance(1.0, 1.0), 0.0)
    assert of_provider(settings, "beta", NOVEMBER_26) == {}
