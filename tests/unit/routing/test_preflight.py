"""Which steps can serve the lines of an input, reported before the first call."""

from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.jobs.submission import Estimate
from understudy.producer.ingest.input_rows import Row, Shape
from understudy.producer.ingest.intake import JobReader
from understudy.producer.runs.preflight import Preflight

IMAGE = {"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
SETTINGS = Settings.model_validate(
    {
        "providers": {
            "openai": {"api_keys": ["env.OPENAI_API_KEY"]},
            "local": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"},
        },
        "chains": {
            "old": {"steps": ["openai/gpt-3.5-turbo"]},
            "both": {"steps": ["openai/gpt-3.5-turbo", "openai/gpt-4o-mini"]},
            "long": {"steps": [{"model": "openai/gpt-4o-mini", "when": {"min_input_tokens": 1_000}}, "local/m"]},
            "cheapest": {"steps": ["openai/gpt-4o", "openai/gpt-4o-mini"], "order": "cheapest"},
        },
    }
)


def body(chain: str, text: str = "hello", *parts: dict[str, Any], **words: Any) -> dict[str, Any]:
    content: Any = [{"type": "text", "text": text}, *parts] if parts else text
    return {"model": chain, "messages": [{"role": "user", "content": content}], **words}


def preflight(*bodies: dict[str, Any]) -> Preflight:
    made = Preflight(SETTINGS, every_step=True)
    reader = JobReader(Shape(), SETTINGS)
    for line, each in enumerate(bodies, 1):
        job = reader.job(line, Row(each))
        made.add(job)  # type: ignore[arg-type]
    return made


def firsts(made: Preflight) -> dict[str, int]:
    return {step.step: step.first for chain in made.forecast.chains for step in chain.steps if step.first}


def test_nothing_is_found_when_every_line_fits_every_step() -> None:
    made = preflight(body("both"), body("both", tools=TOOLS), body("old"))
    assert made.findings == [] and made.unfit == 0


def test_lines_that_skip_a_step_are_counted_by_step_and_reason_and_the_next_one_is_reckoned_with() -> None:
    made = preflight(body("both"), *[body("both", "look", IMAGE)] * 3, body("both", "x" * 100_000))
    assert made.findings == [
        "3 lines will skip openai/gpt-3.5-turbo (images)",
        "1 line will skip openai/gpt-3.5-turbo (context window)",
    ]
    assert firsts(made) == {"openai/gpt-3.5-turbo": 1, "openai/gpt-4o-mini": 4}
    costs = {step.step: step.cost_usd for chain in made.forecast.chains for step in chain.steps}
    assert made.forecast.estimate.usd is not None
    assert costs["openai/gpt-4o-mini"] < made.forecast.estimate.usd < costs["openai/gpt-3.5-turbo"]


def test_lines_that_fit_no_step_are_named_with_the_reason() -> None:
    bodies = [body("old", "x" * 100_000) if line % 2 else body("old") for line in range(1, 21)]
    assert preflight(*bodies).findings == ["10 of 20 lines fit no step: lines 1, 3, 5, 7, 9, … (context window)"]
    assert preflight(body("old", "look", IMAGE)).findings == ["1 of 1 line fits no step: line 1 (images)"]


def test_lines_that_fit_no_step_cost_nothing() -> None:
    lone, beside = preflight(body("old")), preflight(body("old", "x" * 100_000), body("old"))
    assert beside.forecast.estimate == lone.forecast.estimate and beside.forecast.lines == 2
    unpriced = preflight(body("old", "x" * 100_000), body("local/m"))
    assert unpriced.forecast.estimate == Estimate(None, 1)
    assert preflight(body("old", "x" * 100_000)).forecast.estimate == Estimate(0.0, 0)
    assert sum(step.first for chain in beside.forecast.chains for step in chain.steps) == 1


def test_a_short_line_after_a_long_one_and_the_other_way_round_are_judged_each_for_itself() -> None:
    short, long = body("old"), body("old", "x" * 100_000)
    for order in ([short, long, short], [long, short, long], [short, short, long]):
        expected = sum(each is long for each in order)
        assert preflight(*order).unfit == expected


def test_long_answers_count_as_well_as_long_prompts() -> None:
    made = preflight(body("old"), body("old", max_tokens=4_000), body("old", max_tokens=400_000), body("old"))
    assert made.unfit_lines == [3]


def test_a_long_prompt_and_a_long_answer_that_fit_each_alone_need_not_fit_together() -> None:
    long = "x" * 4 * 18_000
    made = preflight(
        body("old", long, max_tokens=9), body("old", max_tokens=4_000), body("old", long, max_tokens=4_000)
    )
    assert made.unfit_lines == [3]


def test_a_steps_condition_is_kept_for_short_and_long_lines() -> None:
    made = preflight(body("long"), body("long", "x" * 8_000), body("long"))
    assert firsts(made) == {"local/m": 2, "openai/gpt-4o-mini": 1}
    assert made.findings == ["2 lines will skip openai/gpt-4o-mini (its condition)"]


def test_the_cheapest_step_is_reckoned_with_where_the_chain_asks_it_first() -> None:
    assert firsts(preflight(body("cheapest"), body("cheapest", "look", IMAGE))) == {"openai/gpt-4o-mini": 2}


def test_memory_stays_flat_when_every_line_needs_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.producer.runs.preflight.KNOWN_NEEDS", 20)
    made = preflight(*(body("both", "x" * (4 * number), tools=TOOLS) for number in range(50)))
    assert 0 < len(made._skips) <= 20 and made.forecast.lines == 50


@pytest.mark.parametrize("lines", [1, 2])
def test_the_sentence_about_cost_is_whole(lines: int) -> None:
    said = preflight(*[body("both")] * lines).expected
    assert said.startswith("1 line, about $" if lines == 1 else "2 lines, about $")
