"""The expected cost of a batch, from its lines and current prices."""

import json
from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.costs.forecast import KNOWN_CHAINS, MOST_CHAINS, REST, Forecast
from understudy.models.costs.pricing import Pricing
from understudy.models.jobs.submission import Estimate, NewJob
from understudy.models.jobs.views import DeploymentTally
from understudy.models.request.tokens import TYPICAL_OUTPUT_TOKENS, Usage
from understudy.models.routing.chain import EMBEDDINGS, Chain, Step
from understudy.producer.number_format import dollars, expected_cost

PRICES = {"cheap": {"input": 1.0, "output": 2.0}, "dear": {"input": 100.0, "output": 200.0}}
LEAD = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "prices": PRICES}
SETTINGS = Settings.model_validate({"providers": {"lead": LEAD, "anthropic": {"api_keys": ["env.ANTHROPIC_API_KEY"]}}})


def chain(*models: str, **policy: Any) -> Chain:
    return Chain(steps=tuple(Step(provider="lead", model=model) for model in models), **policy)


def job(of: Chain, tokens: int = 1_000, most: int = 100) -> NewJob:
    return NewJob("job_1", json.dumps({}), of, "r1", tokens=tokens, max_output_tokens=most)


def forecast(*jobs: NewJob, every_step: bool = False) -> Forecast:
    made = Forecast(SETTINGS, every_step=every_step)
    made.add_all(jobs)
    return made


def test_the_step_that_would_answer_first_is_reckoned_with() -> None:
    made = forecast(job(chain("cheap", "dear")), job(chain("cheap", "dear"), tokens=3_000, most=200))
    assert made.estimate == Estimate(pytest.approx((4_000 * 1 + 300 * 2) / 1e6), 0)
    assert (made.lines, made.input_tokens, made.output_tokens) == (2, 4_000, 300)


def test_an_answer_is_taken_to_be_as_long_as_allowed_but_no_longer_than_a_typical_one() -> None:
    allowed = {0: TYPICAL_OUTPUT_TOKENS, 7: 7, 1_000_000: TYPICAL_OUTPUT_TOKENS}
    for most, expected in allowed.items():
        assert forecast(job(chain("cheap"), most=most)).output_tokens == expected


def test_earlier_answers_of_a_model_tell_how_long_its_next_ones_are() -> None:
    answered = [
        DeploymentTally("lead", "cheap", answered=4, output_tokens=121),
        DeploymentTally("lead", "dear", answered=0, output_tokens=0),
        DeploymentTally("other", "chatty", answered=1, output_tokens=400),
    ]
    made = Forecast(SETTINGS, answered=answered)
    made.add_all([job(chain("cheap"), most=0), job(chain("cheap"), most=20), job(chain("dear"), most=0)])
    mean_of_cheap, allowed, mean_of_all = 31, 20, 105
    assert made.length_known
    assert made.output_tokens == mean_of_cheap + allowed + mean_of_all


def test_answers_without_usage_tell_nothing_about_the_length_of_the_next_ones() -> None:
    made = Forecast(SETTINGS, answered=[DeploymentTally("lead", "cheap", answered=7)])
    made.add(job(chain("cheap"), most=0))
    assert not made.length_known
    assert made.output_tokens == TYPICAL_OUTPUT_TOKENS


def test_a_steps_own_limit_on_its_answer_wins_over_the_requests() -> None:
    short = Chain(steps=(Step(provider="lead", model="cheap", params={"max_tokens": 10}),))
    assert forecast(job(short, most=400)).output_tokens == 10


def test_embeddings_have_no_output() -> None:
    made = forecast(job(chain("cheap", endpoint=EMBEDDINGS), most=0))
    assert made.estimate.usd == pytest.approx(1_000 / 1e6)


def test_lines_without_a_price_are_counted_and_left_out() -> None:
    made = forecast(job(chain("cheap")), job(chain("nobody-knows")), job(chain("nobody-knows", "cheap")))
    assert made.estimate == Estimate(pytest.approx(1_200 / 1e6), 2)


def test_without_any_price_the_cost_is_unknown_and_not_zero() -> None:
    assert forecast(job(chain("nobody-knows"))).estimate == Estimate(None, 1)
    assert forecast().estimate.usd is None


def test_a_provider_that_is_configured_no_more_has_no_price() -> None:
    gone = Chain(steps=(Step(provider="gone", model="cheap"),))
    assert forecast(job(gone)).estimate == Estimate(None, 1)


def test_every_step_is_reckoned_as_if_it_answered_all() -> None:
    made = forecast(job(chain("cheap", "dear", "nobody-knows")), job(chain("dear")), every_step=True)
    steps = {
        group.lines: [(step.step, step.cost_usd, step.unpriced_lines) for step in group.steps] for group in made.chains
    }
    assert len(made.chains) == 2 and steps.keys() == {1}
    (long,) = (group for group in made.chains if len(group.steps) == 3)
    assert [step.cost_usd for step in long.steps] == [pytest.approx(0.0012), pytest.approx(0.12), 0.0]
    assert [step.unpriced_lines for step in long.steps] == [0, 0, 1]


def test_lines_of_equal_steps_are_one_chain_whatever_else_they_say() -> None:
    made = forecast(job(chain("cheap")), job(chain("cheap", spill=True)), job(chain("dear")))
    assert [(group.steps[0].step, group.lines) for group in made.chains] == [("lead/cheap", 2), ("lead/dear", 1)]


def test_memory_stays_flat_when_every_line_has_a_chain_of_its_own() -> None:
    made = Forecast(SETTINGS)
    lines = KNOWN_CHAINS + 10
    for number in range(lines):
        made.add(job(chain("cheap" if number == 3 else f"model-{number}")))
    assert len(made.chains) == MOST_CHAINS + 1 and len(made._known) <= KNOWN_CHAINS
    (rest,) = (group for group in made.chains if (group.steps[0].step,) == REST)
    assert rest.lines == lines - MOST_CHAINS
    assert made.estimate == Estimate(pytest.approx(0.0012), lines - 1)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-haiku-4-5", "claude-sonnet-4-6"])
@pytest.mark.parametrize("tokens", [0, 1, 1_000, 100_000, 200_000, 200_001, 900_000])
def test_the_rate_of_this_moment_is_the_price_in_every_tier(model: str, tokens: int) -> None:
    pricing = Pricing(SETTINGS)
    priced = pricing.cost_usd("anthropic", model, Usage(tokens, 77))
    assert priced is not None
    assert pricing.rate("anthropic", model)(tokens, 77) == pytest.approx(priced, abs=1e-11)


def test_words_tell_the_sum_what_it_leaves_out_and_when_it_is_unknown() -> None:
    assert expected_cost(Estimate(0.0612), 2_000) == "about $0.0612 expected"
    assert "excluding 12 of 2,000 lines" in expected_cost(Estimate(1.0, 12), 2_000)
    assert "cost unknown" in expected_cost(Estimate(None, 5), 5)
    assert [dollars(usd) for usd in (0.0, 0.000_001, 12.5, 12_345.6)] == [
        "$0.0000",
        "under $0.0001",
        "$12.5000",
        "$12,346",
    ]
