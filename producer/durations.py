"""Times and durations as text: 90s, 15m, 24h, 7d, 14:03:20 (in 25s)."""

import re
from datetime import datetime

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
