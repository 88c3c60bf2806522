"""How much company a job may have that was aboard of workers which died.

A crash counts for every job that was aboard: any of them may have caused it, and so may a power cut. The more crashes
a job has, the fewer others of its kind share a worker with it. The innocent among them end and are cleared, while the
jobs that were aboard of every crash become fewer with each one, until the job that causes them runs alone.
"""

from collections.abc import Iterable, Sequence

ALONE_AT = 4
"""A job with so many crashes shares its worker with nothing, and the fleet with no other job that has crashes."""

DEAD_AT = 7
"""A job with so many crashes fails, if it was alone in its worker at the last one."""


def company(crashes: int, slots: int) -> int:
    """How many jobs that have at least so many crashes a worker of so many slots may hold: half of its slots, an
    eighth, a thirty-second, one."""
    return slots if crashes == 0 else max(2 * slots // 4**crashes, 1)


def admit(new: Sequence[int], aboard: Iterable[int], slots: int) -> list[bool]:
    """Which of some jobs, given by their crashes and in this order, a worker may hold besides those aboard."""
    held = [crashes for crashes in aboard if crashes]
    admitted = []
    for crashes in new:
        limits = range(1, min(crashes, ALONE_AT) + 1)
        fits = all(sum(other >= least for other in held) < company(least, slots) for least in limits)
        admitted.append(fits)
        if fits and crashes:
            held.append(crashes)
    return admitted
