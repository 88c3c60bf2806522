"""The ledger's time, without a query each time.

Scheduled times and deadlines are compared with the ledger's clock, and machines disagree. Between two readings this
machine's monotonic clock advances the time; its wall clock is irrelevant.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from understudy.models.cancellation import running
from understudy.models.store import Store, StoreError

READ_EVERY_S = 5.0


@asynccontextmanager
async def ledger_clock(store: Store) -> AsyncIterator["LedgerClock"]:
    """A clock synchronized with the ledger's while the block runs. Raises StoreError."""
    clock = LedgerClock(store.now)
    await clock.read()
    async with running(_keep_reading(clock), name="ledger clock"):
        yield clock


async def _keep_reading(clock: "LedgerClock") -> None:
    while True:
        await asyncio.sleep(READ_EVERY_S)
        with suppress(StoreError):  # until it is back, the monotonic clock is good enough
            await clock.read()


class LedgerClock:
    """Unix seconds. Must be read once before use."""

    def __init__(self, now: Callable[[], Awaitable[float]], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._offset_s: float | None = None

    async def read(self) -> None:
        """Synchronize with the ledger's clock. The accuracy of a reading is limited by how long it took.

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
