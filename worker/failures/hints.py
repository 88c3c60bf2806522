"""How long a response asks us to wait."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from worker.failures.complaint import Complaint

MAX_HINT_S = 86_400.0
"""Longer hints are cut to a day: by then a probe costs nothing, and a wrong clock must not stop a fleet for good."""

_UNIT_S = {"ms": 0.001, "milli": 0.001, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_AMOUNT = r"\d+(?:\.\d+)?\s*(?:milliseconds?|ms|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)(?![a-z])[\s,]*"
_CLOCK = r"\d{1,3}:\d\d:\d\d"
_ONE_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(milli|ms|d|h|m|s)", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_AMOUNT})+", re.IGNORECASE)
_SENTENCE = re.compile(
    r"(?:try(?:ing)? again|retry(?:ing)?|wait(?:ing)?|resets?|replenished|available)(?: again)?(?: your request)?"
    rf"(?: in| after| for| at least| about| approximately|:)* ?(?P<duration>(?:{_AMOUNT})+|{_CLOCK})",
    re.IGNORECASE,
)
_EPOCH_S = 1e9
_EPOCH_MS = 1e11


def seconds(text: str) -> float | None:
    """`12ms`, `6m0s`, `9m38.016s`, `34.07s`, `2 minutes`, `02:12:11` and plain seconds."""
    text = text.strip()
    if re.fullmatch(_CLOCK, text):
        hours, minutes, rest = map(int, text.split(":"))
        return hours * 3600.0 + minutes * 60.0 + rest
    if _DURATION.fullmatch(text):
        return sum(float(amount) * _UNIT_S[unit.lower()] for amount, unit in _ONE_AMOUNT.findall(text))
    return _number(text)


def until(text: str, now: float) -> float | None:
    """Seconds from `now` until a moment: an HTTP date, RFC 3339, or unix time in seconds or milliseconds."""
    moment = _number(text)
    if moment is not None:
        if moment >= _EPOCH_MS:
            return moment / 1000 - now
        return moment - now if moment >= _EPOCH_S else None
    try:
        when = datetime.fromisoformat(text) if re.match(r"\d{4}-", text) else parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
    except (OverflowError, ValueError):
        return None


def seconds_or_until(text: str, now: float) -> float | None:
    """For fields that some fill with a duration and others with a moment."""
    moment = until(text, now)
    return seconds(text) if moment is None else moment


def sender_now(headers: Mapping[str, str], now: float) -> float:
    """The provider's own time, where it tells: moments that it names are on its clock, not on ours."""
    return now + (until(headers.get("date", ""), now) or 0.0)


def read_hint(headers: Mapping[str, str], complaint: Complaint, now: float) -> float | None:
    """The first wait in the future that the response names, from the most exact place to the least."""
    headers = {**complaint.headers, **headers}
    now = sender_now(headers, now)
    for candidate in _candidates(headers, complaint, now):
        if candidate is not None and candidate > 0:
            return min(candidate, MAX_HINT_S)
    return None


def _candidates(headers: Mapping[str, str], complaint: Complaint, now: float) -> list[float | None]:
    milliseconds = [_number(headers.get(name, "")) for name in ("retry-after-ms", "x-ms-retry-after-ms")]
    sentence = _SENTENCE.search(complaint.text)
    return [
        *(None if value is None else value / 1000 for value in milliseconds),
        seconds_or_until(headers.get("retry-after", ""), now),
        *(seconds(str(delay)) for delay in complaint.retry_delays),
        seconds(sentence["duration"]) if sentence else None,
        _exhausted_until(headers, now),
    ]


def _exhausted_until(headers: Mapping[str, str], now: float) -> float | None:
    """When the last of the limits that are used up is reset. Azure writes one of the names with a hyphen more."""
    resets = []
    for name, value in headers.items():
        if "-reset" not in name or not re.match(r"x-rate-?limit-|anthropic-ratelimit-", name):
            continue
        left = _number(headers.get(name.replace("-reset", "-remaining"), "0"))
        if left is not None and left <= 0:
            resets.append(seconds_or_until(value, now) or 0.0)
    return max(resets, default=None)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
