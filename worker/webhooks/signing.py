"""The secrets that sign webhooks, cached briefly: many deliveries query the ledger once per owner."""

import asyncio
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

from understudy.models.store import Store
from understudy.models.webhooks import Delivery, Signing

KEPT_S = 3.0
"""A replaced secret stays valid for a day, so one this old is right. An endpoint that was disabled or removed may be
notified for this long."""

KEPT_OWNERS = 1_000


class Signings:
    """Cache of one worker. Secrets are in memory only, and no longer than they are used."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[float, Signing]] = {}
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of(self, delivery: Delivery) -> Signing:
        """Raises StoreError."""
        asking = self._asking.setdefault(delivery.owner, asyncio.Lock())
        async with asking:
            now = self._clock()
            until, signing = self._known.get(delivery.owner, (now, None))
            if signing is None or now >= until:
                signing = await self._store.webhooks.signing(delivery)
                self._keep(delivery.owner, now, signing)
            return signing

    def forget(self, owner: str) -> None:
        """Drop the cached secrets."""
        self._known.pop(owner, None)

    def _keep(self, owner: str, now: float, signing: Signing) -> None:
        if len(self._known) >= KEPT_OWNERS:
            self._known = {name: kept for name, kept in self._known.items() if now < kept[0]}
        if len(self._known) < KEPT_OWNERS:
            self._known[owner] = now + KEPT_S, signing
