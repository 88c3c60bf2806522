"""Values read from Redis are untrusted: other programs may write anything there, and none of it may crash a process."""

MOST = 1e14
"""In milliseconds the year 5138. Nothing that we write is larger."""


def number(value: bytes | str | None) -> float | None:
    """A number in the form we write, of either sign; None if it is not one, or is beyond MOST."""
    try:
        found = float(value) if value else None
    except ValueError:
        return None
    return found if found is not None and abs(found) <= MOST else None


def text(value: bytes | str) -> str:
    """With replacement characters for invalid UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
