"""Limits learned from headers, and what an exception of the HTTP client means."""

import asyncio
import ssl

import httpx
import pytest
from failure_cases import NOW

from understudy.models.failure import FailureClass
from understudy.worker.failures import LimitSignals, classify_exception, read_limits

F = FailureClass
MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0


def openai_headers(*values: str) -> dict[str, str]:
    names = [
        f"x-ratelimit-{field}-{unit}" for unit in ("requests", "tokens") for field in ("limit", "remaining", "reset")
    ]
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize(
    ("provider", "protocol", "headers", "expected"),
    [
        (
            *("openai", "openai", openai_headers("500", "499", "120ms", "200000", "199998", "6m0s")),
            LimitSignals(500, 499, 0.12, MINUTE_S, 200_000, 199_998, 360, MINUTE_S),
        ),
        (
            *("groq", "openai", openai_headers("14400", "14370", "2m59.56s", "18000", "17997", "7.66s")),
            LimitSignals(14_400, 14_370, 179.56, DAY_S, 18_000, 17_997, 7.66, MINUTE_S),
        ),
        (
            *("azure", "openai", openai_headers("-1", "-1", "0", "150000", "149000", "55")),
            LimitSignals(None, None, None, MINUTE_S, 150_000, 149_000, 55, MINUTE_S),
        ),
        (
            *("azure", "openai"),
            {"X-RateLimit-Remaining-Tokens": "0", "x-rate-limit-reset-tokens": "55"},
            LimitSignals(tokens_remaining=0, tokens_reset_s=55),
        ),
        (
            *("mistral", "openai"),
            {
                "x-ratelimit-limit-req-minute": "60",
                "x-ratelimit-remaining-req-minute": "59",
                "x-ratelimit-limit-tokens-minute": "500000",
                "x-ratelimit-remaining-tokens-minute": "499000",
            },
            LimitSignals(60, 59, None, MINUTE_S, 500_000, 499_000, None, MINUTE_S),
        ),
        (
            *("cerebras", "openai"),
            {
                "x-ratelimit-limit-requests-day": "1000",
                "x-ratelimit-remaining-requests-day": "999",
                "x-ratelimit-reset-requests-day": "33011.3",
                "x-ratelimit-limit-tokens-minute": "60000",
                "x-ratelimit-remaining-tokens-minute": "100",
                "x-ratelimit-reset-tokens-minute": "11.4",
            },
            LimitSignals(1000, 999, 33_011.3, DAY_S, 60_000, 100, 11.4, MINUTE_S),
        ),
        (
            *("together", "openai"),
            {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "1"},
            LimitSignals(10, 9, 1.0, 1.0, tokens_period_s=1.0),
        ),
    ],
)
def test_limits_are_learned_from_the_headers(
    provider: str, protocol: str, headers: dict[str, str], expected: LimitSignals
) -> None:
    assert read_limits(provider, protocol, headers, NOW) == expected


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "period_s"),
    [
        ("10000", "9999", "8.64s", DAY_S),  # a day that refills steadily: each used request takes its share of it
        ("10000", "9993", "1m0.48s", DAY_S),
        ("10000", "5000", "12h0m0s", DAY_S),
        ("200", "199", "7m12s", DAY_S),
        ("2000", "1997", "130", DAY_S),
        ("100", "99", "36s", HOUR_S),
        ("1000", "400", "36m0s", HOUR_S),
        ("10000", "9000", "7h", DAY_S),  # a day that ends at once: its reset is too far away for any shorter period
        ("10000", "100", "11m", HOUR_S),
        ("10000", "0", "2h", DAY_S),
        ("500", "499", "120ms", MINUTE_S),
        ("500", "100", "48s", MINUTE_S),
        ("500", "0", "59s", MINUTE_S),  # a minute that ends at once
        ("3600", "3599", "1s", MINUTE_S),  # rounded up from a sixtieth of it
        ("600", "600", "0s", MINUTE_S),
        ("600", "590", "", MINUTE_S),
    ],
)
def test_a_limit_of_requests_without_a_named_period_has_the_one_that_its_numbers_tell(
    limit: str, remaining: str, reset: str, period_s: float
) -> None:
    headers = openai_headers(limit, remaining, reset, "200000", "199000", "300ms")
    for provider in ("openai", "mine"):
        signals = read_limits(provider, "openai", headers, NOW)
        assert signals is not None
        assert (signals.requests_period_s, signals.tokens_period_s) == (period_s, MINUTE_S)


def test_a_limit_of_tokens_that_refills_over_a_day_is_a_days() -> None:
    signals = read_limits("mine", "openai", openai_headers("60", "59", "1s", "1000000", "990000", "14m24s"), NOW)
    assert signals is not None
    assert (signals.requests_period_s, signals.tokens_period_s) == (MINUTE_S, DAY_S)


def test_anthropics_resets_are_moments_and_count_as_zero_when_past() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:32Z",
        "anthropic-ratelimit-tokens-limit": "25000",
        "anthropic-ratelimit-tokens-remaining": "16000",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:13:00Z",
    }
    limits = read_limits("anthropic", "anthropic", headers, NOW)
    assert limits == LimitSignals(50, 49, 12.0, MINUTE_S, 25_000, 16_000, 0.0, MINUTE_S)


def test_anthropics_input_limit_serves_where_there_is_no_common_one() -> None:
    headers = {"anthropic-ratelimit-input-tokens-limit": "200000", "anthropic-ratelimit-output-tokens-limit": "80000"}
    assert read_limits("mine", "anthropic", headers, NOW) == LimitSignals(tokens_limit=200_000)


@pytest.mark.parametrize(
    ("protocol", "headers"),
    [
        ("openai", {}),
        ("openai", {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-reset-tokens": "0"}),
        ("openai", {"x-ratelimit-limit-requests": "many"}),
        ("openai", {"x-ratelimit-limit": "50"}),
        ("bedrock", {"x-amzn-requestid": "r"}),
        ("gemini", {"x-ratelimit-limit-requests": "5"}),
    ],
)
def test_headers_that_tell_no_limit_teach_nothing(protocol: str, headers: dict[str, str]) -> None:
    assert read_limits("mine", protocol, headers, NOW) is None


@pytest.mark.parametrize(
    ("error", "cls", "billed"),
    [
        (httpx.ConnectError("the name host could not be resolved"), F.CONNECT, False),
        (httpx.ConnectTimeout("slow"), F.CONNECT, False),
        (httpx.PoolTimeout("full"), F.CONNECT, False),
        (httpx.ProxyError("no"), F.CONNECT, False),
        (ssl.SSLError("bad certificate"), F.CONNECT, False),
        (ConnectionRefusedError(), F.CONNECT, False),
        (httpx.ReadTimeout("late"), F.TIMEOUT, True),
        (httpx.WriteTimeout("late"), F.TIMEOUT, True),
        (TimeoutError(), F.TIMEOUT, True),
        (httpx.ReadError("lost"), F.TIMEOUT, True),
        (httpx.WriteError("lost"), F.TIMEOUT, True),
        (httpx.RemoteProtocolError("no HTTP"), F.TIMEOUT, True),
        (ConnectionResetError(), F.TIMEOUT, True),
        (httpx.DecodingError("not gzip"), F.BAD_RESPONSE, True),
        (httpx.InvalidURL("x"), F.CREDENTIAL, False),
        (httpx.UnsupportedProtocol("ftp"), F.CREDENTIAL, False),
        (httpx.LocalProtocolError("illegal header value"), F.CREDENTIAL, False),
        (asyncio.CancelledError(), F.CANCELLED, True),
        (ZeroDivisionError("x"), F.UNKNOWN, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_says_whether_the_request_was_sent(error: BaseException, cls: FailureClass, billed: bool) -> None:
    failure = classify_exception(error)
    assert (failure.cls, failure.possibly_billed, failure.status) == (cls, billed, None)
    assert failure.message


def test_the_text_of_an_exception_is_told_only_where_it_cannot_hold_a_secret() -> None:
    assert classify_exception(httpx.ReadTimeout("host did not finish")).message == "host did not finish"
    assert "secret" not in classify_exception(httpx.LocalProtocolError("illegal header: secret")).message
    assert "secret" not in classify_exception(ValueError("secret")).message
    assert "sk-abc12345678" not in classify_exception(httpx.ConnectError("with sk-abc12345678")).message
