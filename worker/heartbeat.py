"""The heartbeat: a thread with its own event loop, connections and nothing else to do.

A worker whose main loop is busy for seconds keeps its lease; a worker whose process is stopped loses it, and finds
out here that its jobs were taken back.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import redis.exceptions

from models.store import StoreBusy, StoreUnavailable
from worker.limits import LimitsUnavailable

log = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0


class Heartbeat:
    """Calls `beat` every five seconds in a thread, until stopped. `open_beat` opens its own connections."""

    def __init__(self, open_beat: Callable[[AsyncExitStack], Awaitable[Callable[[], Awaitable[None]]]]) -> None:
        self._open_beat = open_beat
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=2 * BEAT_EVERY_S)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _main(self) -> None:
        asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        async with AsyncExitStack() as stack:
            beat = await self._open_beat(stack)
            while not self._stopping.is_set():
                try:
                    await beat()
                except (redis.exceptions.RedisError, StoreBusy, StoreUnavailable, LimitsUnavailable) as outage:
                    log.warning("A heartbeat did not get through: %s", type(outage).__name__)
                await asyncio.to_thread(self._stopping.wait, BEAT_EVERY_S)
