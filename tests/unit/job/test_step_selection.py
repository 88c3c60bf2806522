"""The order in which steps are asked, by price or latency, and what the planner sees of it."""

import pytest
from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.costs.pricing import Pricing
from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain, Step
from understudy.worker.job.step_selection import StepSelection
from understudy.worker.limits.latency import MEASURING_S, Latencies
from understudy.worker.redis_scripts import ScriptRunner

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "alpha": {
                "prices": {"m": {"input": 1.0, "output": 30.0}},
                "tags": {"region": "us"},
                "base_url": "http://a",
            },
            "beta": {"prices": {"m": {"input": 2.0, "output": 2.0}}, "tags": {"region": "eu"}, "base_url": "http://b"},
            "gamma": {"base_url": "http://c"},
        }
    }
)
"""Alpha is expensive for answers, beta for long prompts; gamma has no price and no tags."""


def chain(*names: str, **policy: object) -> Chain:
    steps = tuple(Step(provider=name.partition("/")[0], model=name.partition("/")[2]) for name in names)
    return Chain.model_validate({"steps": steps, **policy})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def choice(clock: Clock) -> StepSelection:
    return StepSelection(SETTINGS, Pricing(SETTINGS), Latencies(ScriptRunner(Redis()), clock))


def order(choice: StepSelection, of: Chain, needs: Needs | None = None) -> tuple[int, ...]:
    return choice.order(of, needs or Needs())


def test_the_cheapest_step_for_this_job_comes_first_and_unknown_prices_last(choice: StepSelection) -> None:
    by_price = chain("gamma/m", "alpha/m", "beta/m", order="cheapest")
    assert order(choice, by_price, Needs(input_tokens=10, output_tokens=400)) == (2, 1, 0)
    assert order(choice, by_price, Needs(input_tokens=100_000, output_tokens=10)) == (1, 2, 0)


def test_steps_of_one_price_stay_in_the_order_of_the_chain(choice: StepSelection) -> None:
    assert order(choice, chain("gamma/x", "gamma/m", "gamma/y", order="cheapest")) == (0, 1, 2)


def test_the_fastest_step_comes_first(choice: StepSelection) -> None:
    for provider, latency_ms in (("alpha", 900), ("beta", 200), ("gamma", 500)):
        choice.latencies.answered(provider, "m", latency_ms)
    assert order(choice, chain("alpha/m", "beta/m", "gamma/m", order="fastest")) == (1, 2, 0)


def test_an_unmeasured_step_is_asked_by_one_job_first_and_by_the_others_last(
    choice: StepSelection, clock: Clock
) -> None:
    by_speed = chain("alpha/m", "beta/m", order="fastest")
    choice.latencies.answered("alpha", "m", 300)
    assert choice.planned(by_speed, 0)[0].steps[0].provider == "beta"
    assert order(choice, by_speed) == (1, 0)
    assert order(choice, by_speed) == (0, 1)
    clock.now += MEASURING_S + 1
    assert order(choice, by_speed) == (1, 0)
    choice.latencies.answered("beta", "m", 100)
    assert [order(choice, by_speed) for _ in range(3)] == [(1, 0)] * 3


def test_at_first_each_step_is_measured_by_one_job(choice: StepSelection) -> None:
    by_speed = chain("alpha/m", "beta/m", "gamma/m", order="fastest")
    assert [order(choice, by_speed)[0] for _ in range(4)] == [0, 1, 2, 0]


def test_a_step_that_may_not_serve_the_job_is_not_measured_by_it(choice: StepSelection) -> None:
    by_speed = chain("gamma/m", "beta/m", order="fastest", require={"region": ("eu",)})
    assert order(choice, by_speed) == (0, 1)
    assert not choice.latencies.is_measured("gamma/m")
    assert choice.latencies.is_measured("beta/m")


def test_one_slow_answer_moves_the_average_by_a_fifth(choice: StepSelection) -> None:
    choice.latencies.answered("alpha", "m", 100)
    choice.latencies.answered("alpha", "m", 600)
    assert choice.latencies.of("alpha/m") == pytest.approx(200)


def test_the_planner_sees_the_allowed_steps_in_the_order_asked(choice: StepSelection) -> None:
    plain = chain("alpha/m", "beta/m")
    assert choice.planned(plain, 9) == (plain, None)
    of = chain("gamma/m", "alpha/m", "beta/m", order="cheapest", forbid={"region": ("uk",)})
    ruled, barred = choice.planned(of, 9)
    assert ([str(step) for step in ruled.steps], barred) == (["beta/m", "alpha/m"], None)


def test_the_planner_is_told_the_rule_that_no_step_keeps(choice: StepSelection) -> None:
    of = chain("alpha/m", "gamma/m", require={"region": ("uk",)})
    seen, barred = choice.planned(of, 9)
    assert seen == of
    assert barred == "'alpha/m' breaks the rule require region = uk: provider 'alpha' has region = us"
