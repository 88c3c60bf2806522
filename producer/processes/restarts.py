"""When to restart a process that ended."""

import signal

from understudy.models.errors import UNREACHABLE, WRONG_USE, OutOfReach

STARTED_S = 5.0
"""A worker that lived this long (seconds), or had jobs, did start: its end says nothing about the next one."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

TRIES = 6
"""Consecutive workers that end before they started, after which none is expected to start. Takes half a minute."""


HOPELESS = 15
"""Deaths per slot, with jobs running and before any job has finished, that cannot be blamed on a few jobs."""


class GrowingPause:
    """The pause between restarts in seconds: doubles each time, up to a maximum."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._last_s = 0.0

    def next_s(self) -> float:
        self._last_s = min(2 * self._last_s or FIRST_PAUSE_S, self._longest_s)
        return self._last_s

    def reset(self) -> None:
        self._last_s = 0.0


class WorkersFailed(OutOfReach):
    """Workers cannot start or work on this machine. The message is one sentence; their output was shown before."""


class Restarts:
    """Successive worker processes in one slot of the supervising command."""

    def __init__(self) -> None:
        self._in_vain = 0
        self._pause = GrowingPause(LONGEST_PAUSE_S)

    def pause_s(self, code: int, lived_s: float, held: int) -> float:
        """Seconds to wait before the next worker, after one ended with this exit code (negative: a signal), `lived_s`
        seconds after its start, with `held` running jobs.

        Raises WorkersFailed when workers exit by themselves before they have started. Workers are restarted without
        limit if they were killed, cannot reach the queue or ledger (which will be back), or were asked to stop (exit
        code 0): anyone with write access to Redis can do that.
        """
        if held or lived_s >= STARTED_S:
            self._in_vain = 0
            self._pause.reset()
            return 0.0
        self._in_vain += 1
        if code == WRONG_USE or (code > 0 and code != UNREACHABLE and self._in_vain >= TRIES):
            raise WorkersFailed(f"workers end right after their start, {how_it_ended(code)}; see their output above")
        return self._pause.next_s()


class Losses:
    """Counts the workers of one command that died with running jobs."""

    def __init__(self, places: int) -> None:
        self._bearable = HOPELESS * places
        self._deaths = 0

    def add(self, code: int, held: int, anything_ended: bool) -> None:
        """Raises WorkersFailed when it must be this machine, not a job, that kills workers."""
        self._deaths += bool(held)
        if self._deaths >= self._bearable and not anything_ended:
            raise WorkersFailed(
                f"{self._deaths} workers died with running jobs before any job finished, the last one "
                f"{how_it_ended(code)}; find out what kills them (if it is low memory, lower --max-concurrency)"
            )


def how_it_ended(code: int) -> str:
    """An exit code as text."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
