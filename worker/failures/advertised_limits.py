"""Limits advertised in the headers of any response, successful or not."""

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.worker.failures.retry_after import MAX_HINT_S, seconds_or_until, sender_now

MINUTE_S = 60.0
HOUR_S = 3_600.0
DAY_S = 86_400.0

CLOSE = 0.1
"""The tolerance, as a share, for a period derived from the numbers."""

COARSE_S = 10.0
"""Some round resets to a second: fewer whole seconds than this are inconclusive."""


@dataclass(frozen=True, slots=True)
class LimitSignals:
    """The amount allowed per period, the remaining amount, and the seconds until reset. None: not advertised."""

    requests_limit: float | None = None
    requests_remaining: float | None = None
    requests_reset_s: float | None = None
    requests_period_s: float = MINUTE_S
    tokens_limit: float | None = None
    tokens_remaining: float | None = None
    tokens_reset_s: float | None = None
    tokens_period_s: float = MINUTE_S


@dataclass(frozen=True, slots=True)
class _Names:
    """Header names; `{}` stands for limit, remaining or reset. `provider` None: the names are unambiguous."""

    requests: str
    tokens: tuple[str, ...]
    provider: str | None = None
    requests_period_s: float = MINUTE_S
    tokens_period_s: float = MINUTE_S


_OPENAI = ("x-ratelimit-{}-requests", ("x-ratelimit-{}-tokens",))
_NAMES = (
    _Names("anthropic-ratelimit-requests-{}", ("anthropic-ratelimit-tokens-{}", "anthropic-ratelimit-input-tokens-{}")),
    _Names("x-ratelimit-{}-req-minute", ("x-ratelimit-{}-tokens-minute",)),  # Mistral
    _Names("x-ratelimit-{}-requests-day", ("x-ratelimit-{}-tokens-minute",), requests_period_s=DAY_S),  # Cerebras
    _Names(*_OPENAI, provider="groq", requests_period_s=DAY_S),
    _Names(*_OPENAI),  # OpenAI, Azure and most others
    _Names("x-ratelimit-{}", ("x-tokenlimit-{}",), provider="together", requests_period_s=1.0, tokens_period_s=1.0),
)
"""The row that finds most counts; ties go to the first."""

_Standing = tuple[float | None, float | None, float | None]
_NOTHING: _Standing = (None, None, None)


def read_limits(provider: str, protocol: str, headers: Mapping[str, str], now: float) -> LimitSignals | None:
    """The limits advertised in a response's headers, or None.

    `now` in unix seconds. Azure's -1 means no limit; resets in the past count as 0.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    if protocol in ("gemini", "bedrock"):  # neither advertises any
        return None
    best, most = None, 0
    for names in _NAMES:
        if names.provider not in (None, provider):
            continue
        requests = _read(headers, names.requests, now)
        tokens = next((found for each in names.tokens if (found := _read(headers, each, now)) != _NOTHING), _NOTHING)
        count = (requests != _NOTHING) + (tokens != _NOTHING)
        if count > most:
            best = LimitSignals(
                *(*requests, max(_period_s(requests, names.requests_period_s), _reset_within_s(requests))),
                *(*tokens, _period_s(tokens, names.tokens_period_s)),
            )
            most = count
    return best


def _read(headers: Mapping[str, str], name: str, now: float) -> _Standing:
    """Limit, remaining amount, and seconds to the reset, which means nothing without one of the others."""
    limit, remaining = _count(headers.get(name.format("limit"))), _count(headers.get(name.format("remaining")))
    if limit is None and remaining is None:
        return _NOTHING
    field = name.format("reset")
    reset = headers.get(field) or headers.get(field.replace("x-ratelimit", "x-rate-limit"))  # Azure's hyphen
    reset_s = seconds_or_until(reset, sender_now(headers, now)) if reset else None
    return limit, remaining, None if reset_s is None else min(max(reset_s, 0.0), MAX_HINT_S)


def _period_s(standing: _Standing, named_s: float) -> float:
    """The period derived from the numbers if its name does not state it, in seconds.

    A steadily refilling limit resets after the used share of its period: limit × reset ÷ used. OpenAI's lowest tier
    advertises 10,000 requests and 8.64 s per used request, which is a day.
    """
    limit, remaining, reset_s = standing
    if limit is None or remaining is None or reset_s is None or remaining >= limit:
        return named_s
    if reset_s < COARSE_S and reset_s.is_integer():
        return named_s
    told_s = limit * reset_s / (limit - remaining)
    return next((long_s for long_s in (HOUR_S, DAY_S) if abs(told_s / long_s - 1) <= CLOSE), named_s)


def _reset_within_s(standing: _Standing) -> float:
    """The minimum period, because no reset lies beyond its end: 0 if inconclusive."""
    reset_s = standing[2] or 0.0
    if reset_s <= MINUTE_S * (1 + CLOSE):
        return 0.0
    return HOUR_S if reset_s <= HOUR_S * (1 + CLOSE) else DAY_S


def _count(text: str | None) -> float | None:
    try:
        count = float(text) if text else -1.0
    except ValueError:
        return None
    return count if 0 <= count < float("inf") else None
