"""The keys that were presented lately, so that a request costs no look into the ledger.

What is kept is the hash of the whole key as it was presented, and the record it was right for, if any: a wrong secret
for an id that exists takes exactly the way of an id that does not.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable

from understudy.models.api_keys import KeyRecord, is_right, parts_of
from understudy.models.store import Store

KEPT_S = 3.0
"""A revoked key is refused after this time at the latest, and the first key that is made closes the door."""

KEPT_KEYS = 10_000
LOOKS = 4
"""Looks into the ledger at the same time: a crowd with wrong keys cannot take all its connections."""


class Keyring:
    """What one API process knows about keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[float, KeyRecord | None]] = {}
        self._any: tuple[float, bool] | None = None
        self._looks = [asyncio.Lock() for _ in range(LOOKS)]  # a key always takes the same one: it is looked up once

    async def find(self, store: Store, presented: str) -> KeyRecord | None:
        """The record of a key that is right, though perhaps revoked or expired. Raises StoreError."""
        parts = parts_of(presented)
        if parts is None:
            return None
        name = hashlib.sha256(presented.encode()).digest()
        known = self._known.get(name)
        if known is None or self._clock() >= known[0]:
            async with self._looks[name[0] % LOOKS]:
                known = self._known.get(name)
                if known is None or self._clock() >= known[0]:
                    known = await self._look(store, name, *parts)
        return known[1]

    async def has_keys(self, store: Store) -> bool:
        """Whether anybody has made a key. Raises StoreError."""
        if self._any is None or self._clock() >= self._any[0]:
            until = self._clock() + KEPT_S
            self._any = until, await store.tenants.has_keys()
        return self._any[1]

    def forget(self) -> None:
        """Keys were changed by this process."""
        self._known.clear()
        self._any = None

    async def _look(self, store: Store, name: bytes, key_id: str, secret: str) -> tuple[float, KeyRecord | None]:
        until = self._clock() + KEPT_S
        record = await store.tenants.key(key_id)
        while len(self._known) >= KEPT_KEYS:
            del self._known[next(iter(self._known))]
        self._known.pop(name, None)
        self._known[name] = until, record if is_right(secret, record) else None
        return self._known[name]
