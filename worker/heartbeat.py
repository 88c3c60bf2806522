"""Signs of life. To the ledger, the heartbeat: a thread with its own event loop and connections, and no other work.

A worker whose main loop is busy for seconds keeps its lease; a worker whose process was suspended loses it, and learns
here that its jobs were taken back. A main loop that blocks for a minute does not recover: the worker exits, so that
others take its jobs and find the culprit.

To the parent process, a byte a second, from a thread that does nothing else. It needs neither the ledger nor the main
loop, so its absence says nothing about them: no code of this process is running (`producer/processes/supervision.py`).
"""

import asyncio
import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from understudy.models.store import StoreOutage

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
"""Two beats may be lost before the lease is."""

WATCH_EVERY_S = 1.0
LONGEST_STOP_S = 2.0
"""A hanging beat must not keep the process from exiting; the thread dies with it."""


STUCK_S = 60.0
EXIT_STUCK = 70

SHOWN_EVERY_S = 1.0


def end_stuck_process() -> None:
    """No code of this process can be asked to exit any more. Its stack is logged: code locations, no values."""
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_STUCK)


class Heartbeat:
    """Calls `beat` three times within each lease in a thread, until stopped. `open_beat` opens its own connections."""

    def __init__(
        self,
        open_beat: Callable[[AsyncExitStack], Awaitable[Callable[[], Awaitable[None]]]],
        lease_s: float,
        missed: Callable[[], None] = lambda: None,
        stuck: Callable[[], None] = end_stuck_process,
        well: Callable[[], None] = lambda: None,
    ) -> None:
        """Called in the thread: `missed` when a beat failed or was late, `stuck` when the main loop is blocked.
        Called in the main loop, every second: `well` while the lease is live."""
        self._open_beat = open_beat
        self._missed = missed
        self._stuck = stuck
        self._well = well
        self._turns = self._turns_seen = 0  # of the main loop
        self._still_s = 0.0
        self._lease_s = lease_s
        self._every_s = lease_s / BEATS_PER_LEASE
        self._leased_until = self._got_through_at = float("-inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The lease has just begun."""
        self._got_through_at = time.monotonic()
        self._leased_until = self._got_through_at + self._lease_s
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # it has died, and its loop is closed
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=LONGEST_STOP_S)

    def lease_runs(self) -> bool:
        """Whether this worker's lease can still be live, by the latest successful beat."""
        return time.monotonic() < self._leased_until

    def in_touch(self) -> bool:
        """Whether the latest beat succeeded in time: otherwise the ledger may be hanging."""
        return time.monotonic() - self._got_through_at < 2 * self._every_s

    async def watch(self) -> None:
        """Never returns; raises when the thread has died, because without it this worker's jobs are taken away."""
        while self._thread.is_alive():
            self._turns += 1
            if self.lease_runs():
                self._well()
            await asyncio.sleep(WATCH_EVERY_S)
        raise RuntimeError("the heartbeat has died")

    def _main(self) -> None:
        loop = self._loop
        assert loop is not None
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                async with AsyncExitStack() as stack:
                    beat = await self._open_beat(stack)
                    while not self._stopping.is_set():
                        began = time.monotonic()
                        await beat()
                        self._leased_until = began + self._lease_s
                        if not self.in_touch():  # the ledger hung, and others' beats with it
                            self._missed()
                        self._got_through_at = time.monotonic()
                        await self._rest(self._every_s)
            except StoreOutage as outage:
                self._missed()
                log.warning("A heartbeat did not get through: %s", type(outage).__name__)
                await self._rest(self._every_s / BEATS_PER_LEASE)

    async def _rest(self, for_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self._stopping.wait()
        self._watch_main_loop(for_s)

    def _watch_main_loop(self, rested_s: float) -> None:
        """Counted in this thread's rests, not by the clock: in a suspended process both stop."""
        self._still_s = self._still_s + rested_s if self._turns == self._turns_seen else 0.0
        self._turns_seen = self._turns
        if self._still_s >= STUCK_S and not self._stopping.is_set():
            log.critical("The main loop has been blocked for %.0f s; this worker exits, others run its jobs", STUCK_S)
            self._stuck()


def show_life(descriptor: int) -> None:
    """Write to a pipe from now on, while this process lives and the pipe is read.

    If the sign is missing, SIGUSR2 makes this process write where it is: code locations, no values.
    """
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    os.set_blocking(descriptor, False)
    threading.Thread(target=_write, args=(descriptor,), name="alive", daemon=True).start()


def show_well(descriptor: int) -> None:
    """In addition, for the health file: the loops of this worker run, and its lease is live."""
    with suppress(OSError):
        os.write(descriptor, b"+")


def _write(descriptor: int) -> None:
    while True:
        try:
            os.write(descriptor, b".")
        except BlockingIOError:
            pass  # the reader has been suspended for a long time
        except OSError:
            return
        time.sleep(SHOWN_EVERY_S)
