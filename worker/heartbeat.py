"""The heartbeat: a thread with its own event loop, connections and nothing else to do.

A worker whose main loop is busy for seconds keeps its lease; a worker whose process is stopped loses it, and finds
out here that its jobs were taken back.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from models.store import StoreOutage

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
"""Two beats may be lost before the lease is."""

WATCH_EVERY_S = 1.0
LONGEST_STOP_S = 2.0
"""A beat that hangs must not keep the process from ending; the thread dies with it."""


class Heartbeat:
    """Calls `beat` three times within each lease in a thread, until stopped. `open_beat` opens its own connections."""

    def __init__(
        self,
        open_beat: Callable[[AsyncExitStack], Awaitable[Callable[[], Awaitable[None]]]],
        lease_s: float,
        missed: Callable[[], None] = lambda: None,
    ) -> None:
        """`missed` is called in the thread when a beat does not get through."""
        self._open_beat = open_beat
        self._missed = missed
        self._lease_s = lease_s
        self._every_s = lease_s / BEATS_PER_LEASE
        self._leased_until = float("-inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The lease has just begun."""
        self._leased_until = time.monotonic() + self._lease_s
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # it has died, and its loop is closed
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=LONGEST_STOP_S)

    def lease_runs(self) -> bool:
        """Whether this worker's lease can still run, by the latest beat that got through."""
        return time.monotonic() < self._leased_until

    async def watch(self) -> None:
        """Return never; raise when the thread has died, because without it this worker's jobs are taken away."""
        while self._thread.is_alive():
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
                        await self._rest(self._every_s)
            except StoreOutage as outage:
                self._missed()
                log.warning("A heartbeat did not get through: %s", type(outage).__name__)
                await self._rest(self._every_s / BEATS_PER_LEASE)

    async def _rest(self, for_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self._stopping.wait()
