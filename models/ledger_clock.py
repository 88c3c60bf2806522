"""The time by the ledger's clock, without asking the ledger each time.

What waits until a time, and deadlines, are compared with the ledger's clock, and machines disagree. Between two
readings this machine's monotonic clock counts on: what it believes the time to be matters to nobody.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from understudy.models.store import Store, StoreError

READ_EVERY_S = 5.0


@asynccontextmanager
async def ledger_clock(store: Store) -> AsyncIterator["LedgerClock"]:
    """A clock that is compared with the ledger's for as long as the block runs. Raises StoreError."""
    clock = LedgerClock(store.now)
    await clock.read()
    reading = asyncio.create_task(_keep_reading(clock), name="ledger clock")
    try:
        yield clock
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _keep_reading(clock: "LedgerClock") -> None:
    while True:
        await asyncio.sleep(READ_EVERY_S)
        with suppress(StoreError):  # until it is back, the monotonic clock is good enough
            await clock.read()


class LedgerClock:
    """Unix seconds. Must be read once before it is asked."""

    def __init__(self, now: Callable[[], Awaitable[float]], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._offset_s: float | None = None

    async def read(self) -> None:
        """Compare it with the ledger's. A reading that took long tells no more than its own length.

        Raises StoreOutage.
        """
        began = self._monotonic()
        now = await self._now()
        ended = self._monotonic()
        offset_s = now - (began + ended) / 2
        if self._offset_s is None or abs(offset_s - self._offset_s) > (ended - began) / 2:
            self._offset_s = offset_s

    def __call__(self) -> float:
        assert self._offset_s is not None, "the ledger's clock was never read"
        return self._monotonic() + self._offset_s
