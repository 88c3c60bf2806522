"""When a worker process is restarted, and when it is killed because it hangs.

A worker hangs when some code in it keeps the interpreter lock (GIL). It sends no heartbeats, so its lease expires and
others take its jobs, but it still occupies its slot. The evidence must be unambiguous, because a healthy worker must
not be killed for a slow ledger, a changed clock or a suspended machine:

- The sign of life (`worker/heartbeat.py`) is a byte in a pipe, from a thread that needs nothing but the lock.
- Its absence is counted in our own loop iterations, not by a clock: time in which we were stopped, too, does not count.
- It counts only while the kernel lets the process run. A stopped or frozen process uses no CPU time; one whose lock is
  held does, because each thread waiting for the lock polls it 200 times a second.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psutil

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


LOOK_S = 1.0
WELL = b"+"
"""The sign (`worker/heartbeat.py`) of a worker whose loops are running and whose lease is valid."""
HANGS_AFTER_LEASES = 2
"""A worker hangs when no thread has run for this many lease times: by then its lease has expired, too."""

IDLE_LOOKS = 10
"""Consecutive looks without CPU time after which the lock is not the cause of missing signs. Two threads waiting for a
lock use 10 ms, the kernel's unit, within three seconds."""

TERM_S = 5.0
STOPPED = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE})


@dataclass(slots=True)
class Look:
    """An observation of a process: whether it gave a sign of life, whether the kernel has stopped it, and its CPU
    time."""

    sign: bool
    stopped: bool
    computed_s: float


class Silence:
    """Counts the consecutive looks at which a process was hanging."""

    def __init__(self) -> None:
        self._began = False  # before the first sign it is starting, which may take any time
        self._computed_s = 0.0
        self._idle = 0
        self.looks = 0

    def add(self, look: Look) -> None:
        self._began = self._began or look.sign
        if look.computed_s > self._computed_s:
            self._computed_s, self._idle = look.computed_s, 0
        else:
            self._idle += 1
        if look.sign or look.stopped or self._idle >= IDLE_LOOKS or not self._began:
            self.looks = 0
        else:
            self.looks += 1


class Watch:
    """Watches a worker process, which is started with the write end of a pipe (`writes`)."""

    def __init__(self, lease_s: float) -> None:
        self._silent_looks = HANGS_AFTER_LEASES * lease_s / LOOK_S
        self.well_at = float("-inf")
        """When it last reported that it is well, by the monotonic clock."""
        self._reads, self.writes = os.pipe()
        os.set_blocking(self._reads, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reads)

    def is_given_away(self) -> None:
        """The process has been given its end of the pipe."""
        os.close(self.writes)

    async def end_if_it_hangs(self, pid: int, say: Callable[[str], None]) -> None:
        """Return once it has killed the process, or when the process is gone."""
        silence = Silence()
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            while silence.looks < self._silent_looks:
                await asyncio.sleep(LOOK_S)
                silence.add(self._look(process))
            say(f"worker {pid} hangs: none of its threads has run for {silence.looks * LOOK_S:.0f} s; killing it")
            process.send_signal(signal.SIGUSR2)  # it logs its stack
            process.terminate()
            await asyncio.sleep(TERM_S)
            process.kill()

    def _look(self, process: psutil.Process) -> Look:
        times = process.cpu_times()
        signs = self._signs()
        if WELL in signs:
            self.well_at = time.monotonic()
        return Look(bool(signs), process.status() in STOPPED, times.user + times.system)

    def _signs(self) -> bytes:
        try:
            return os.read(self._reads, 1 << 16)
        except BlockingIOError:
            return b""
