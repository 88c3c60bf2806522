"""Limits per second are distinguished from limits per minute by several responses, not by one."""

from collections.abc import Iterator

import pytest

from understudy.worker.failures import LimitSignals
from understudy.worker.failures.advertised_limits import DAY_S, MINUTE_S
from understudy.worker.limits.grants import Deployment
from understudy.worker.limits.header_periods import SECOND_S, AdvertisedPeriods

ALPHA = Deployment("alpha", "m", "main", "alpha:main")
EVERY_S = 0.5


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def periods(told: Iterator[LimitSignals] | list[LimitSignals], every_s: float = EVERY_S) -> list[float]:
    """The period of the limit of requests, after each of these responses."""
    clock, seen = Clock(), []
    at = AdvertisedPeriods(clock)
    for each in told:
        seen.append(at.named(ALPHA, each).requests_period_s)
        clock.now += every_s
    return seen


def requests(limit: float, remaining: float, reset_s: float, period_s: float = MINUTE_S) -> LimitSignals:
    return LimitSignals(limit, remaining, reset_s, period_s)


def test_what_refills_within_a_second_over_and_over_is_a_seconds() -> None:
    seen = periods([requests(10, 9, 0.1), requests(10, 5, 0.5), requests(10, 7, 0.31), *[requests(10, 9, 0.099)] * 4])
    assert seen[:3] == [MINUTE_S] * 3 and seen[-1] == SECOND_S


def test_it_stays_a_seconds_while_it_is_used_up() -> None:
    assert periods([*[requests(10, 9, 0.1)] * 6, requests(10, 0, 0.97), requests(10, 10, 0.0)])[-2:] == [SECOND_S] * 2


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([requests(600, each, (60 - each * 0.1) * 0.998) for each in range(599, 0, -40)], id="a minute"),
        pytest.param([requests(500, 499, 0.12)] * 9, id="a minute that refills steadily"),
        pytest.param(
            [requests(600, each, (10 - each) / 10) for each in (0, 3, 9, 5, 8)] * 3, id="a bucket of a second"
        ),
        pytest.param([requests(600, 0, 1.0)] * 9, id="an empty bucket"),
        pytest.param([requests(10, 5, 1.0)] * 9, id="rounded to whole seconds"),
        pytest.param([requests(600, 300, 0.1)] * 9, id="the time to the next one"),
    ],
)
def test_what_may_be_a_minutes_is_a_minutes(told: list[LimitSignals]) -> None:
    assert set(periods(told)) == {MINUTE_S}


def test_the_last_second_of_a_minute_is_none_however_many_calls_end_in_it() -> None:
    ending = [requests(600, 300 + each, 0.5 - each / 600) for each in range(10)]
    assert set(periods([*ending, requests(600, 599, 59.9), *ending], every_s=0.03)) == {MINUTE_S}


def test_one_that_was_taken_for_a_seconds_is_a_minutes_again_when_its_reset_is_further_away() -> None:
    assert periods([*[requests(10, 9, 0.1)] * 6, requests(10, 9, 54.0)])[-2:] == [SECOND_S, MINUTE_S]


def test_a_period_that_is_named_or_known_to_be_longer_stays() -> None:
    assert set(periods([requests(10, 9, 0.1, DAY_S)] * 9)) == {DAY_S}


def test_tokens_and_models_are_told_apart() -> None:
    clock = Clock()
    at = AdvertisedPeriods(clock)
    for _ in range(6):
        told = at.named(ALPHA, LimitSignals(60, 59, 1.0, tokens_limit=1000, tokens_remaining=600, tokens_reset_s=0.4))
        clock.now += EVERY_S
    assert (told.requests_period_s, told.tokens_period_s) == (MINUTE_S, SECOND_S)
    other = Deployment("alpha", "other", "main", "alpha:main")
    assert at.named(other, requests(10, 9, 0.1)).requests_period_s == MINUTE_S
