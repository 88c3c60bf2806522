"""The heartbeat: a thread with its own event loop, connections and nothing else to do.

A worker whose main loop is busy for seconds keeps its lease; a worker whose process is stopped loses it, and finds
out here that its jobs were taken back.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

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
        self._every_s = lease_s / BEATS_PER_LEASE
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=LONGEST_STOP_S)

    async def watch(self) -> None:
        """Return never; raise when the thread has died, because without it this worker's jobs are taken away."""
        while self._thread.is_alive():
            await asyncio.sleep(WATCH_EVERY_S)
        raise RuntimeError("the heartbeat has died")

    def _main(self) -> None:
        asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                async with AsyncExitStack() as stack:
                    beat = await self._open_beat(stack)
                    while not self._stopping.is_set():
                        await beat()
                        await asyncio.to_thread(self._stopping.wait, self._every_s)
            except StoreOutage as outage:
                self._missed()
                log.warning("A heartbeat did not get through: %s", type(outage).__name__)
                await asyncio.to_thread(self._stopping.wait, self._every_s / BEATS_PER_LEASE)
