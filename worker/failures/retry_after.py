"""How long a response asks us to wait."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from understudy.worker.failures.complaint import Complaint
from understudy.worker.failures.echoes import Echoes

MAX_HINT_S = 86_400.0
"""Longer hints are cut to a day: by then a probe costs nothing, and a wrong clock must not stop a fleet for good."""

MAX_SAID_S = 3_600.0
"""A sentence alone is believed for at most an hour if the status concerns neither the account nor load: it is then
about the request, and may repeat its words."""

SPEAKS_OF_LOAD = frozenset({402, 403, 429, 498, 503, 529})

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
LONGEST_NUMBER = 300
"""Digits that still make a finite number: one with more is as long a wait."""

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
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def seconds_or_until(text: str, now: float) -> float | None:
    """For fields that some fill with a duration and others with a moment."""
    moment = until(text, now)
    return seconds(text) if moment is None else moment


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """The wait in the Retry-After header of any server, by its own reckoning: it may be in the past."""
    return seconds_or_until(headers.get("retry-after", ""), now)


def sender_now(headers: Mapping[str, str], now: float) -> float:
    """The provider's own time, if available: its timestamps are by its clock, not ours."""
    return now + (until(headers.get("date", ""), now) or 0.0)


def read_hint(
    status: int, headers: Mapping[str, str], complaint: Complaint, echoes: Echoes, now: float
) -> float | None:
    """The first wait in the future given by the response, from the most exact place to the least."""
    headers = {**complaint.headers, **headers}
    now = sender_now(headers, now)
    milliseconds = [_number(headers.get(name, "")) for name in ("retry-after-ms", "x-ms-retry-after-ms")]
    candidates = [
        *(None if value is None else value / 1000 for value in milliseconds),
        retry_after_s(headers, now),
        *(seconds(str(delay)) for delay in complaint.retry_delays),
        _said(status, complaint.text, echoes),
        _exhausted_until(headers, now),
    ]
    return next((min(each, MAX_HINT_S) for each in candidates if each is not None and each > 0), None)


def _said(status: int, text: str, echoes: Echoes) -> float | None:
    """The wait in a sentence, unless the request contains the same."""
    speaks_of_load = status in SPEAKS_OF_LOAD
    sentence = _SENTENCE.search(text if speaks_of_load else echoes.cut(text))
    said_s = seconds(sentence["duration"]) if sentence and not echoes.has(sentence.group()) else None
    return said_s if said_s is None or speaks_of_load else min(said_s, MAX_SAID_S)


def _exhausted_until(headers: Mapping[str, str], now: float) -> float | None:
    """The latest reset of the exhausted limits. Azure writes one of the names with an additional hyphen."""
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
        number = float(text[:LONGEST_NUMBER]) if text.isascii() else None
    except ValueError:
        return None
    return number if number is not None and isfinite(number) else None
