"""Tells whether a batch is in its last few percent (for tail hedging). Cached for a second."""

import math
import time

from understudy.models.store import Store, StoreOutage

LOOK_EVERY_S = 1.0


class NearlyDone:
    """One worker's cache."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, tuple[float, float]] = {}  # by batch: when checked, the share of unfinished jobs

    async def is_tail(self, batch_id: str, last: float) -> bool:
        """Whether at most this share of the batch's jobs is unfinished. False while the ledger is unavailable."""
        if last <= 0:
            return False
        looked_at, share = self._open.get(batch_id, (-math.inf, 1.0))
        if time.monotonic() - looked_at >= LOOK_EVERY_S:
            now = time.monotonic()
            self._open = {known: seen for known, seen in self._open.items() if now - seen[0] < LOOK_EVERY_S}
            self._open[batch_id] = (now, share)  # so that others do not query in the meantime
            try:
                total, ended = await self._store.batches.ended_of(batch_id)
            except StoreOutage:
                return False
            share = 1.0 - ended / total if total else 1.0
            self._open[batch_id] = (now, share)
        return share <= last
