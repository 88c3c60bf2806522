"""Impossible token counts are distinguished from counts that are only large."""

import pytest

from understudy.worker.job.exchange import is_believable
from understudy.worker.providers.base import Call, Usage, WireRequest

HELLO = WireRequest("/chat", {}, b'{"messages": [{"role": "user", "content": "hello"}]}')


def is_true(usage: Usage, model: str = "m", answer_bytes: int = 500, **body: object) -> bool:
    return is_believable(usage, Call("openai", model, body), HELLO, answer_bytes)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(12, 30),
        Usage(90_000, 30),  # an image, or a system prompt of the provider's
        Usage(12, 60_000, reasoning_tokens=59_000),
        Usage(1_500_000, 400_000),  # files behind links, and long reasoning
        Usage(900_000, 3, cached_tokens=890_000),
    ],
)
def test_what_a_request_and_a_model_may_well_cost_is_believed(usage: Usage) -> None:
    assert is_true(usage)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(4_000_000, 1),
        Usage(1, 3_000_000),
        Usage(2**39, 2**39),
        Usage(5, 5, cached_tokens=10_000_000),
        Usage(5, 5, cache_write_tokens=10_000_000),
        Usage(5, 5, reasoning_tokens=10_000_000),
    ],
)
def test_what_is_beyond_request_answer_and_model_is_not(usage: Usage) -> None:
    assert not is_true(usage)


def test_a_model_whose_window_is_known_reads_no_more_than_that() -> None:
    assert is_true(Usage(120_000, 100), "gpt-4o")
    assert not is_true(Usage(1_000_000, 100), "gpt-4o")


def test_a_provider_that_runs_tools_reads_its_window_more_than_once() -> None:
    assert is_true(Usage(700_000, 100), "gpt-4o", tools=[{"type": "web_search"}])


def test_each_of_several_answers_may_be_long() -> None:
    assert is_true(Usage(5, 1_500_000), n=4)
    assert not is_true(Usage(5, 10**9), n=10**9)


def test_no_token_is_shorter_than_a_byte() -> None:
    assert is_true(Usage(5, 3_000_000), answer_bytes=5_000_000)
