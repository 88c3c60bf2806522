"""Ids that sort by time and satisfy RQ's rule for job ids (letters, digits, `_` and `-`)."""

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_last_ms = 0
_counter = 0


def _base32(value: int, digits: int) -> str:
    letters = []
    for _ in range(digits):
        letters.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(letters))


def new_id(prefix: str) -> str:
    """`prefix_` + 10 characters of time, 3 of a counter within the millisecond, 13 random ones.

    Ids of one process increase strictly; ids of several machines sort by their clocks.
    """
    global _last_ms, _counter
    now_ms = max(time.time_ns() // 1_000_000, _last_ms)
    _counter = _counter + 1 if now_ms == _last_ms else 0
    if _counter >= 1 << 15:
        now_ms, _counter = now_ms + 1, 0
    _last_ms = now_ms
    return f"{prefix}_{_base32(now_ms, 10)}{_base32(_counter, 3)}{_base32(int.from_bytes(os.urandom(9)), 13)}"


def time_of(made: str) -> float:
    """The unix time in an id of `new_id`, to the millisecond. Raises ValueError if it is not one."""
    digits = made.rpartition("_")[2]
    if len(digits) != 26 or not set(digits) <= set(_ALPHABET):
        raise ValueError("not an id that contains a time")
    ms = 0
    for digit in digits[:10]:
        ms = ms << 5 | _ALPHABET.index(digit)
    return ms / 1000


def id_at(prefix: str, time_s: float) -> str:
    """Sorts before every id created from that time on, and after those created before."""
    return f"{prefix}_{_base32(max(0, int(time_s * 1000)), 10)}"
