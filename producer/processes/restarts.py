"""When a process that ended is started again."""

import signal

from understudy.models.errors import OutOfReach
from understudy.producer.exits import UNREACHABLE, WRONG_USE

STARTED_S = 5.0
"""A worker that lived for so long, or had jobs, had started: what ended it says nothing of the next one."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

TRIES = 6
"""So many workers in a row that end before they started mean that none will start. It takes half a minute."""


HOPELESS = 15
"""So many deaths in each place, with jobs aboard and before a single job has ended, are not the fault of a few jobs."""


class GrowingPause:
    """Between one start and the next: twice as long each time, up to a longest one (seconds)."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._last_s = 0.0

    def next_s(self) -> float:
        self._last_s = min(2 * self._last_s or FIRST_PAUSE_S, self._longest_s)
        return self._last_s

    def reset(self) -> None:
        self._last_s = 0.0


class WorkersFailed(OutOfReach):
    """Workers cannot start, or cannot work here. One sentence; what they wrote was shown before."""


class Restarts:
    """One worker process after another, in one place of the command that keeps them."""

    def __init__(self) -> None:
        self._in_vain = 0
        self._pause = GrowingPause(LONGEST_PAUSE_S)

    def pause_s(self, code: int, lived_s: float, held: int) -> float:
        """How long to wait before another worker, when one ended with this exit code (negative: a signal), `lived_s`
        after its start, while it held so many jobs.

        Raises WorkersFailed when workers end by themselves before they start. Killed ones are started again for as
        long as it takes, and so are those that do not reach the queue or the ledger, which come back, and those that
        were told to end (0): whoever can write to Redis can tell them.
        """
        if held or lived_s >= STARTED_S:
            self._in_vain = 0
            self._pause.reset()
            return 0.0
        self._in_vain += 1
        if code == WRONG_USE or (code > 0 and code != UNREACHABLE and self._in_vain >= TRIES):
            raise WorkersFailed(f"workers end right after their start, {how_it_ended(code)}; what they said is above")
        return self._pause.next_s()


class Losses:
    """Workers of one command, in so many places, that died with jobs aboard."""

    def __init__(self, places: int) -> None:
        self._bearable = HOPELESS * places
        self._deaths = 0

    def add(self, code: int, held: int, anything_ended: bool) -> None:
        """Raises WorkersFailed when not a job, but this machine must be what kills workers."""
        self._deaths += bool(held)
        if self._deaths >= self._bearable and not anything_ended:
            raise WorkersFailed(
                f"{self._deaths} workers died with jobs aboard and not a single job has ended, the last one "
                f"{how_it_ended(code)}; look for what kills them here (too little memory? then lower --max-concurrency)"
            )


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
