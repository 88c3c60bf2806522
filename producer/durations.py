"""Lengths of time as people write them: 90s, 15m, 24h, 7d."""

import re

DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", re.ASCII)
UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds_of(text: str) -> float | None:
    """Above 0; None when the text is no length of time. A bare number is seconds."""
    match = DURATION.fullmatch(text)
    return float(match[1]) * UNITS_S[match[2]] or None if match else None
