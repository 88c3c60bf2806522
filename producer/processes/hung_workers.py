"""Worker processes that live, but hang: something in them keeps the interpreter's lock and gives nobody a turn.

Such a worker beats no more, so that its lease ends and others take its jobs, but it stays, with its place. The evidence
must mean nothing else, because a healthy worker must not be ended for a slow ledger, a clock that was set or a machine
that slept:

- The sign of life (`worker/liveness.py`) is a byte in a pipe, from a thread that only needs a turn.
- Its absence is counted in turns of ours, not by a clock: what stopped us, too, counts for nothing.
- It counts only while the kernel lets the process run. One that is stopped or frozen uses no processor time; one whose
  lock is taken does, because each thread that waits for the lock looks for it 200 times a second.
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

LOOK_S = 1.0
WELL = b"+"
"""The sign (`worker/liveness.py`) of a worker whose loops run and whose lease does."""
HANGS_AFTER_LEASES = 2
"""For so many leases no thread must have had a turn: then its lease has ended, too."""

IDLE_LOOKS = 10
"""After so many in a row without any processor time, it is not its lock that keeps a process from its signs. Two
threads that wait for a lock use the 10 ms that the kernel counts in within three seconds."""

TERM_S = 5.0
STOPPED = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE})


@dataclass(slots=True)
class Look:
    """What is seen of a process: whether it gave a sign, whether the kernel lets it run, what it has computed."""

    sign: bool
    stopped: bool
    computed_s: float


class Silence:
    """Counts for how many looks a process has hung."""

    def __init__(self) -> None:
        self._began = False  # before the first sign it starts, and may load for as long as it takes
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
    """Looks at one worker process, which is started with the end of a pipe that it `writes` to."""

    def __init__(self, lease_s: float) -> None:
        self._silent_looks = HANGS_AFTER_LEASES * lease_s / LOOK_S
        self.well_at = float("-inf")
        """When it said last that it is well, by the monotonic clock."""
        self._reads, self.writes = os.pipe()
        os.set_blocking(self._reads, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reads)

    def is_given_away(self) -> None:
        """The process has its end."""
        os.close(self.writes)

    async def end_if_it_hangs(self, pid: int, say: Callable[[str], None]) -> None:
        """Returns when it has ended the process, or when there is none."""
        silence = Silence()
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            while silence.looks < self._silent_looks:
                await asyncio.sleep(LOOK_S)
                silence.add(self._look(process))
            say(f"worker {pid} hangs: nothing in it has had a turn for {silence.looks * LOOK_S:.0f} s; it is ended")
            process.send_signal(signal.SIGUSR2)  # it says where it is
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
