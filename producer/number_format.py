"""Figures as text: counts, costs, times and durations. `$0.0123`, 2,000 lines, 90s, 24h, 14:03:20 (in 25s)."""

import re
from datetime import datetime

from understudy.models.jobs.submission import Estimate

DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", re.ASCII)
UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds_of(text: str) -> float | None:
    """Seconds, above 0; None when the text is not a duration. A bare number is seconds."""
    match = DURATION.fullmatch(text)
    return float(match[1]) * UNITS_S[match[2]] or None if match else None


def duration(seconds: float) -> str:
    """In seconds: 90 → 1m30s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def ago(then: float, now: float) -> str:
    return f"{duration(max(now - then, 0))} ago"


def clock_time(at: float, now: float) -> str:
    """The time of day, with the date unless it is today."""
    then = datetime.fromtimestamp(at)
    today = then.date() == datetime.fromtimestamp(now).date()
    return then.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def until(at: float, now: float) -> str:
    """`14:03:20 (in 25s)`; below ten seconds `14:03:20 (in 0.4s)`."""
    left_s = max(at - now, 0.0)
    return f"{clock_time(at, now)} (in {f'{left_s:.1f}s' if left_s < 10 else duration(left_s)})"


SMALLEST_SHOWN_USD = 0.0001


def expected_cost(estimate: Estimate, lines: int) -> str:
    """The end of a sentence that begins with what will run, such as `2,000 lines, `."""
    if estimate.usd is None:
        return "cost unknown: none of its models has a known price"
    words = f"about {dollars(estimate.usd)} expected"
    if estimate.unpriced_lines:
        words += f", excluding {estimate.unpriced_lines:,} of {lines:,} lines, whose model has no known price"
    return words


def counted(count: int, word: str, plural: str | None = None) -> str:
    """2,000 lines, 1 line."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def spent(usd: float, unpriced_calls: int) -> str:
    """The cost of calls, and the number of calls of unknown cost: `$0.0123`, `$0.0123 + 40 calls of unknown cost`."""
    if not unpriced_calls:
        return _exactly(usd)
    unknown = f"{counted(unpriced_calls, 'call')} of unknown cost"
    return f"{_exactly(usd)} + {unknown}" if usd else unknown


def spent_briefly(usd: float, unpriced_calls: int) -> str:
    """As `spent`, for a column: `$0.0123`, `$0.0123 + ?`, `unknown`."""
    if not unpriced_calls:
        return _exactly(usd)
    return f"{_exactly(usd)} + ?" if usd else "unknown"


def dollars(usd: float) -> str:
    """An estimate: `$0.0123`, `$12,345`."""
    return _exactly(usd) if usd < 1_000 else f"${usd:,.0f}"


def _exactly(usd: float) -> str:
    """A cost above zero is never shown as zero."""
    return f"under ${SMALLEST_SHOWN_USD:.4f}" if 0 < usd < SMALLEST_SHOWN_USD else f"${usd:,.4f}"
