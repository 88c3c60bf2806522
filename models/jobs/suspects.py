"""How many other jobs may run alongside a job whose workers have died.

A crash counts against every job that was running in the worker: any of them may have caused it, and so may a power cut.
The more crashes a job has, the fewer suspects share a worker with it. Innocent jobs finish and are cleared, and the set
of jobs present in every crash shrinks with each crash, until the culprit runs alone.
"""

from collections.abc import Iterable, Sequence

ALONE_AT = 4
"""A job with this many crashes shares its worker with no other job, and the fleet with no other suspect."""

DEAD_AT = 7
"""A job with this many crashes fails if it was alone in its worker at the last one."""


def max_suspects(crashes: int, slots: int) -> int:
    """How many jobs with at least this many crashes a worker may run at once: half of its slots, an eighth, a
    thirty-second, one."""
    return slots if crashes == 0 else max(2 * slots // 4**crashes, 1)


def admit(new: Sequence[int], aboard: Iterable[int], slots: int) -> list[bool]:
    """Which of some new jobs, given as crash counts in order, a worker may take in addition to those it runs."""
    held = [crashes for crashes in aboard if crashes]
    admitted = []
    for crashes in new:
        limits = range(1, min(crashes, ALONE_AT) + 1)
        fits = all(sum(other >= least for other in held) < max_suspects(least, slots) for least in limits)
        admitted.append(fits)
        if fits and crashes:
            held.append(crashes)
    return admitted
