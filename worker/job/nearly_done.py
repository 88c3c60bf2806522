"""Which batches are nearly done, looked at no more than once a second each."""

import math
import time

from understudy.models.store import Store, StoreBusy, StoreUnavailable

LOOK_EVERY_S = 1.0


class NearlyDone:
    """One worker's view."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, tuple[float, float]] = {}  # batch: when it was looked at, the share that has not ended

    async def is_tail(self, batch_id: str, last: float) -> bool:
        """Whether at most this share of the batch's jobs has not ended. False while the ledger cannot say."""
        if last <= 0:
            return False
        looked_at, share = self._open.get(batch_id, (-math.inf, 1.0))
        if time.monotonic() - looked_at >= LOOK_EVERY_S:
            now = time.monotonic()
            self._open = {known: seen for known, seen in self._open.items() if now - seen[0] < LOOK_EVERY_S}
            self._open[batch_id] = (now, share)  # so that others do not ask meanwhile
            try:
                total, ended = await self._store.batches.ended_of(batch_id)
            except (StoreBusy, StoreUnavailable):
                return False
            share = 1.0 - ended / total if total else 1.0
            self._open[batch_id] = (now, share)
        return share <= last
