"""What was read from Redis: whoever can write there can write anything, and nothing of it may end a process."""

MOST = 1e14
"""In milliseconds the year 5138. Nothing that we write is larger."""


def number(value: bytes | str | None) -> float | None:
    """A number as we write it, of either sign; None for what is none, or is beyond MOST."""
    try:
        found = float(value) if value else None
    except ValueError:
        return None
    return found if found is not None and abs(found) <= MOST else None


def text(value: bytes | str) -> str:
    """With a mark in place of what is no UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
