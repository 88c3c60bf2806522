"""A cache of presented keys, so that a request needs no ledger query.

It stores a hash of the whole presented key and the matching record, if any. A wrong secret for an existing id takes
exactly the same path as an unknown id.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable

from understudy.models.api_keys import KeyRecord, is_right, parts_of
from understudy.models.store import Store

KEPT_S = 3.0
"""Seconds after which a revoked key is rejected at the latest, and after which the first key makes keys mandatory."""

KEPT_KEYS = 10_000
LOOKS = 4
"""Concurrent ledger queries: many callers with wrong keys cannot use up its connections."""


class Keyring:
    """The key cache of one API process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[bytes, tuple[float, KeyRecord | None]] = {}
        self._any: tuple[float, bool] | None = None
        self._looks = [asyncio.Lock() for _ in range(LOOKS)]  # a key always uses the same lock, so it is looked up once

    async def find(self, store: Store, presented: str) -> KeyRecord | None:
        """The record of a correct key, which may be revoked or expired. Raises StoreError."""
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
        """Whether any key exists. Raises StoreError."""
        if self._any is None or self._clock() >= self._any[0]:
            until = self._clock() + KEPT_S
            self._any = until, await store.api_keys.exist()
        return self._any[1]

    def forget(self) -> None:
        """Clear the cache after this process changed keys."""
        self._known.clear()
        self._any = None

    async def _look(self, store: Store, name: bytes, key_id: str, secret: str) -> tuple[float, KeyRecord | None]:
        until = self._clock() + KEPT_S
        record = await store.api_keys.find(key_id)
        while len(self._known) >= KEPT_KEYS:
            del self._known[next(iter(self._known))]
        self._known.pop(name, None)
        self._known[name] = until, record if is_right(secret, record) else None
        return self._known[name]
