"""The limits that the mock enforces: exactly as configured, in each kind of window."""

from hashlib import sha256
from typing import Any

import pytest

from understudy.worker.mock.calls import ReceivedCall
from understudy.worker.mock.config import Limit
from understudy.worker.mock.limits import Limiter


def request(key: str = "sk-1", model: str = "m", size: int = 40, max_tokens: int | None = None) -> ReceivedCall:
    return ReceivedCall("alpha", "openai", model, key, "p", sha256(b"p").digest(), size, max_tokens)


def limiter(**limit: Any) -> Limiter:
    return Limiter([Limit.model_validate(limit)])


def admitted(limits: Limiter, times: list[float], **about: Any) -> int:
    return sum(limits.admit(request(**about), 10, at).admitted for at in times)


def test_a_bucket_admits_one_seconds_worth_at_once_and_then_the_rate() -> None:
    limits = limiter(requests_per_minute=600)
    assert admitted(limits, [0.0] * 50) == 10
    assert admitted(limits, [1.0] * 50) == 10
    assert admitted(limits, [1.0 + n / 1000 for n in range(1, 60_001)]) == 600


def test_a_bucket_refuses_until_the_moment_that_it_names() -> None:
    limits = limiter(requests_per_minute=60)
    assert limits.admit(request(), 10, 0.0).admitted
    refused = limits.admit(request(), 10, 0.25)
    assert refused.wait_s == pytest.approx(0.75)
    assert not limits.admit(request(), 10, 0.99).admitted
    assert limits.admit(request(), 10, 0.25 + 0.75).admitted


def test_a_fixed_window_admits_two_windows_worth_at_its_edge() -> None:
    limits = limiter(requests_per_minute=5, window="fixed")
    assert admitted(limits, [59.0] * 9) == 5
    assert limits.admit(request(), 10, 59.5).wait_s == pytest.approx(0.5)
    assert admitted(limits, [60.0] * 9) == 5


def test_a_sliding_window_never_admits_more_than_the_limit_in_any_minute() -> None:
    limits = limiter(requests_per_minute=5, window="sliding")
    assert admitted(limits, [50.0, 50.0, 58.0, 59.0, 59.0, 59.0, 61.0]) == 5
    assert limits.admit(request(), 10, 61.0).wait_s == pytest.approx(49.0)
    assert admitted(limits, [110.0] * 9) == 2


def test_tokens_are_those_of_the_body_and_of_the_answer() -> None:
    limits = limiter(tokens_per_minute=100, window="fixed")
    assert admitted(limits, [0.0] * 9, size=40) == 5  # 10 input and 10 output tokens each


def test_a_limit_that_counts_max_tokens_reserves_them_whole() -> None:
    limits = limiter(tokens_per_minute=100, window="fixed", count_max_tokens=True)
    assert admitted(limits, [0.0] * 9, size=40, max_tokens=40) == 2


def test_a_request_above_a_buckets_size_leaves_a_debt() -> None:
    limits = limiter(tokens_per_minute=600)  # ten a second
    assert limits.admit(request(size=200), 10, 0.0).admitted  # sixty
    assert limits.admit(request(size=4), 9, 0.0).wait_s == pytest.approx(6.0)


def test_a_request_above_a_minutes_worth_is_never_admitted() -> None:
    assert limiter(tokens_per_minute=100).admit(request(size=800), 10, 0.0).wait_s is None


def test_a_refused_request_is_charged_to_no_limit() -> None:
    narrow = Limit(requests_per_minute=2, window="fixed")
    wide = Limit(tokens_per_minute=1000, window="fixed")
    limits = Limiter([narrow, wide])
    assert admitted(limits, [0.0] * 40) == 2
    verdict = limits.admit(request(), 10, 1.0)
    assert verdict.tokens is not None
    assert verdict.tokens.remaining == 1000 - 2 * 20


@pytest.mark.parametrize(("per", "total"), [("key", 10), ("account", 5)])
def test_keys_have_budgets_of_their_own_unless_the_limit_is_the_accounts(per: str, total: int) -> None:
    limits = limiter(requests_per_minute=5, window="fixed", per=per)
    assert admitted(limits, [0.0] * 9, key="sk-1") + admitted(limits, [0.0] * 9, key="sk-2") == total


def test_models_have_budgets_of_their_own_and_others_are_not_limited() -> None:
    limits = limiter(requests_per_minute=5, window="fixed", model="big-*")
    assert admitted(limits, [0.0] * 9, model="big-1") == 5
    assert admitted(limits, [0.0] * 9, model="big-2") == 5
    assert admitted(limits, [0.0] * 9, model="small") == 9


def test_the_standing_tells_the_limit_what_is_left_and_when_all_is_back() -> None:
    verdict = limiter(requests_per_minute=600, tokens_per_minute=1200).admit(request(), 10, 0.0)
    assert verdict.requests is not None
    assert verdict.tokens is not None
    assert (verdict.requests.limit, verdict.requests.remaining) == (600, 9)
    assert verdict.requests.reset_s == pytest.approx(0.1)
    assert (verdict.tokens.limit, verdict.tokens.remaining) == (1200, 0)
    assert verdict.tokens.reset_s == pytest.approx(1.0)
