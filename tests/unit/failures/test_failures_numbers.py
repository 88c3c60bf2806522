"""The numbers in a refusal count for more than its status and its words."""

import json

import pytest
from failure_cases import NOW, error, google, quota, wrapped

from understudy.models.failure import FailureClass, Scope
from understudy.worker.failures import classify

F = FailureClass


@pytest.mark.parametrize(
    "sentence",
    [
        "Rate limit reached on tokens per minute (TPM): Limit 6000, Used 0, Requested 6001. Please try again in 20s.",
        "Tokens per min (TPM): Limit: 30,000, Requested: 30,601.",
        "Too many tokens: requested 9000 tokens, over the maximum of 8000 per minute",
    ],
)
def test_a_request_for_more_than_the_limit_itself_is_not_waited_for(sentence: str) -> None:
    failure = classify("openai", "openai", 429, {"retry-after": "20"}, json.dumps(error(sentence, "tokens")), NOW)
    assert (failure.cls, failure.scope, failure.hint_s) == (F.TOO_LARGE, Scope.REQUEST, None)


@pytest.mark.parametrize(
    "body",
    [
        error("Rate limit reached on requests per day (RPD): Limit 0, Used 0, Requested 1.", "requests"),
        google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0, model: m", quota("XPerDayPerModel")),
        wrapped(429, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0\nPlease retry in 9s")),
    ],
)
def test_a_limit_of_zero_means_that_the_account_has_no_such_model(body: object) -> None:
    failure = classify("gw", "openai", 429, {}, json.dumps(body), NOW)
    assert (failure.cls, failure.scope, failure.hint_s, failure.sure) == (F.MODEL_MISSING, Scope.MODEL, None, True)


@pytest.mark.parametrize(
    "sentence",
    [
        "Rate limit reached: Limit 6000, Used 5990, Requested 30. Please try again in 1s.",
        "Rate limit is 30 requests per minute. You requested 500 tokens.",
        "Your rate limit is 0.5 requests per second.",
        "Limit 0:30 of an hour",
        "Limit 05, requested 4",
    ],
)
def test_other_numbers_say_nothing(sentence: str) -> None:
    assert classify("gw", "openai", 429, {}, json.dumps(error(sentence)), NOW).cls is F.RATE_LIMIT
