"""How errors are read: their sentences, codes and hints, and what must never come out of them."""

import json
from typing import Any

import pytest
from failure_cases import NOW, Case, classified, delay, error, google, quota
from hypothesis import given
from hypothesis import strategies as st

from understudy.models.failure import Failure, FailureClass, Scope
from understudy.worker.failures import classify

HTTP_DATE = "Mon, 21 Sep 2026 14:13:50 GMT"
"""Thirty seconds after NOW."""


def openai(status: int, body: Any, **headers: str) -> Failure:
    text = body if isinstance(body, str) else json.dumps(body)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify("openai", "openai", status, names, text, NOW)


@pytest.mark.parametrize(
    ("headers", "sentence", "hint_s"),
    [
        ({"retry-after": "16"}, "", 16.0),
        ({"Retry-After": HTTP_DATE}, "", 30.0),
        ({"RETRY-AFTER-MS": "250", "retry-after": "1"}, "", 0.25),
        ({"retry-after": "0"}, "Please try again in 2.5s.", 2.5),
        ({"retry-after": "-1"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "99999999"}, "", 86_400.0),
        ({}, "Please try again in 9m38.016s.", 578.016),
        ({}, "Please try again in 1h2m3s.", 3723.0),
        ({}, "Please retry after 86400 seconds.", 86_400.0),
        ({}, "Please wait 2 minutes and try again.", 120.0),
        ({}, "Retry in about 1 hour.", 3600.0),
        ({}, "Your limit resets in 5 seconds", 5.0),
        ({}, "Try again in 1 day", 86_400.0),
        ({}, "Please try again later. You sent 20 messages.", None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-remaining-requests": "5"}, "", None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, "", 360.0),
        ({"x-rate-limit-reset-tokens": "55"}, "", 55.0),
        ({"x-ratelimit-reset-tokens": "0", "x-ratelimit-remaining-tokens": "-1"}, "", None),
        ({"x-ratelimit-reset": str(NOW + 9), "x-ratelimit-remaining": "0"}, "", 9.0),
    ],
)
def test_the_wait_that_a_response_asks_for_is_found(
    headers: dict[str, str], sentence: str, hint_s: float | None
) -> None:
    failure = classify("openai", "openai", 429, headers, json.dumps(error(sentence)), NOW)
    assert failure.cls is FailureClass.RATE_LIMIT
    assert failure.hint_s == (None if hint_s is None else pytest.approx(hint_s))


def test_a_moment_is_read_on_the_clock_of_the_provider() -> None:
    failure = openai(429, "", date="Tue, 26 Mar 2024 19:59:59 GMT", retry_after="Tue, 26 Mar 2024 20:00:09 GMT")
    assert failure.hint_s == pytest.approx(10.0)


def test_a_reset_in_the_past_is_not_a_hint() -> None:
    headers = {"anthropic-ratelimit-requests-reset": "2024-03-26T20:00:00Z"}
    headers["anthropic-ratelimit-requests-remaining"] = "0"
    assert classify("anthropic", "anthropic", 429, headers, b"{}", NOW).hint_s is None


def test_only_failures_that_pass_carry_a_hint() -> None:
    assert openai(400, error("No such parameter."), retry_after="5").hint_s is None
    assert openai(429, error("x", None, "insufficient_quota"), retry_after="5").hint_s is None
    assert openai(503, error("Down."), retry_after="5").hint_s == 5.0


def test_a_quota_per_day_lasts_until_googles_next_day_whatever_the_delay_says() -> None:
    body = google(429, "RESOURCE_EXHAUSTED", "x", quota("GenerateRequestsPerDayPerProjectPerModel"), delay("34s"))
    failure = classified(Case("", "gemini", "gemini", 429, {}, body, FailureClass.RATE_LIMIT))
    assert failure.per_day
    assert failure.scope is Scope.MODEL
    assert failure.hint_s is not None
    assert (NOW + failure.hint_s) % 86_400 == 8 * 3600


@pytest.mark.parametrize("sentence", ["requests per day (RPD): Limit 200", "Rate limit exceeded: free-models-per-day"])
def test_a_daily_limit_is_marked(sentence: str) -> None:
    assert openai(429, error(sentence)).per_day
    assert not openai(429, error("requests per minute")).per_day


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456789_-xyz",
        "sk-ant-api03-AbCdEf123456",
        "AIzaSyA1234567890abcdefghijkl",
        "gsk_abcdef1234567890",
        "xai-abcdef1234567890",
        "Bearer abc.DEF123456",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_a_key_that_the_provider_repeats_is_masked_everywhere(secret: str) -> None:
    failure = openai(401, error(f"Incorrect key provided: {secret}.", code="invalid_api_key", hint=f"not {secret}"))
    everything = failure.message + json.dumps(failure.body)
    assert failure.cls is FailureClass.CREDENTIAL
    assert secret.split()[-1] not in everything
    assert "***" in failure.message
    assert isinstance(failure.body, dict)


def test_what_echoes_the_request_is_neither_evidence_nor_message() -> None:
    body = {"detail": [{"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Not permitted", "input": "quota"}]}
    echo = error("Failed to call a function.", code="tool_use_failed", failed_generation="rate limit exceeded")
    assert openai(422, body).message == "body.x: Not permitted"
    assert openai(400, echo).cls is FailureClass.BAD_RESPONSE
    assert openai(429, {**body, "input": "insufficient_quota"}).cls is FailureClass.RATE_LIMIT


@pytest.mark.parametrize(
    "sentence",
    [
        "Field required [type=missing, input_value={'content': 'context length exceeded'}, input_type=dict]",
        "[{'type': 'missing', 'msg': 'Field required', 'input': {'content': 'context length exceeded'}}]",
    ],
)
def test_a_request_quoted_inside_a_sentence_is_cut_off(sentence: str) -> None:
    failure = openai(400, error(sentence))
    assert failure.cls is FailureClass.BAD_REQUEST
    assert "Field required" in failure.message
    assert "content" not in failure.message


def test_the_message_is_one_printable_line_of_at_most_500_characters() -> None:
    message = openai(400, error("a\n\tb\u0000\u0007" + "c" * 2000)).message
    assert message.startswith("a b")
    assert message.isprintable()
    assert len(message) == 500


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error("Provider returned error", metadata={"raw": '{"error": {"message": "inner words"}}'}), "inner words"),
        (error(json.dumps({"error": {"message": "words as JSON"}})), "words as JSON"),
        ([{"error": {"message": "in an array"}}], "in an array"),
        ({"code": "Some code", "error": "flat words"}, "flat words"),
        ({"Message": "capital words"}, "capital words"),
        ({"object": "error", "message": {"detail": "nested words"}}, "nested words"),
        ({"success": False, "errors": [{"code": 10000, "message": "listed words"}]}, "listed words"),
        ('event: error\ndata: {"error": {"message": "streamed words"}}\n\n', "streamed words"),
        ("plain words", "plain words"),
        ("<html><title>Nobody\n home</title>", "HTTP 400 with a web page: Nobody home"),
        ("", "HTTP 400 without an explanation"),
        ({"unfamiliar": 1}, "HTTP 400 without an explanation"),
    ],
)
def test_the_sentence_for_people_is_found_in_any_envelope(body: Any, message: str) -> None:
    assert openai(400, body).message == message


def test_the_code_is_the_providers_name_for_the_error() -> None:
    assert openai(404, error("x", "invalid_request_error", "model_not_found")).code == "model_not_found"
    assert openai(429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}).code == "RESOURCE_EXHAUSTED"
    header = {"x-amzn-errortype": "com.amazon#ThrottlingException:http://x"}
    assert classify("bedrock", "bedrock", 400, header, b"{}", NOW).code == "ThrottlingException"


def test_a_long_body_is_kept_as_a_beginning_and_understood_as_a_whole() -> None:
    failure = openai(400, {"padding": "x" * 9000, **error("a", code="context_length_exceeded")})
    assert failure.cls is FailureClass.CONTEXT_LENGTH
    assert isinstance(failure.body, str)
    assert len(failure.body) == 4096


def test_what_may_have_been_done_may_be_billed() -> None:
    billed = {status for status in (400, 401, 408, 429, 500, 502, 503, 529) if openai(status, "").possibly_billed}
    assert billed == {408, 500, 502}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "details", "metadata", "raw", "headers", "retryDelay"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "retry-after-ms", "Date", "Content-Type", "x-ratelimit-reset", "X-Amzn-ErrorType"]),
    st.text(max_size=30) | st.integers().map(str) | st.floats().map(str) | st.datetimes().map(str),
)


@given(
    provider=st.text(max_size=8),
    protocol=st.sampled_from(["openai", "anthropic", "gemini", "bedrock"]),
    status=st.integers(100, 999),
    headers=HEADERS,
    body=st.binary(max_size=300) | st.text(max_size=300) | JSON.map(json.dumps),
)
def test_whatever_a_server_answers_becomes_a_failure(
    provider: str, protocol: str, status: int, headers: dict[str, str], body: bytes | str
) -> None:
    failure = classify(provider, protocol, status, headers, body, NOW)
    assert isinstance(failure, Failure)
    assert failure.message.isprintable()
    assert 0 < len(failure.message) <= 500
    assert failure.hint_s is None or 0 < failure.hint_s <= 86_400


def test_a_body_of_any_depth_is_survived() -> None:
    assert openai(400, '{"error":' * 900 + "1" + "}" * 900).cls is FailureClass.BAD_REQUEST
    assert openai(400, "[" * 100_000).cls is FailureClass.BAD_REQUEST
