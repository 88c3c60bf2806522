"""The keys that callers present: a cache of the right ones, and a record of the rejected ones."""

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from understudy.models.api_keys import KeyRecord, is_right, parts_of
from understudy.models.cancellation import running
from understudy.models.store import Store, StoreError

log = logging.getLogger(__name__)

KEPT_S = 3.0
"""Seconds after which a revoked key is rejected at the latest, and after which the first key makes keys mandatory."""

KEPT_KEYS = 10_000
LOOKS = 4
"""Concurrent ledger queries: many callers with wrong keys cannot use up its connections."""

ACTION = "key.refused"
UNKNOWN = "unknown key"
NO_TENANT = ""
MOST_NAMED = 20
"""Distinct callers and keys recorded per hour and API process; the rest are only counted."""

OTHERS = "other callers"
HOUR_S = 3_600.0
GATHER_S = 0.2
WRITE_EVERY_S = 2.0

Rejection = tuple[str, str, str]
"""Address of the caller, tenant of the key, and id of the key."""


class Keyring:
    """The key cache of one API process, so that a request needs no ledger query.

    It stores a hash of the whole presented key and the matching record, if any. A wrong secret for an existing id takes
    exactly the same path as an unknown id.
    """

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


class RejectedKeys:
    """Records rejected keys in the audit log: promptly, but a flood takes only a few rows an hour.

    The tenant of a known key sees the entry. Any other presented value is never recorded, because it may be a secret.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hour = 0.0
        self._named: set[Rejection] = set()
        self._counts: Counter[Rejection] = Counter()
        self._came = asyncio.Event()

    def note(self, address: str, tenant: str = NO_TENANT, key_id: str = UNKNOWN) -> None:
        """Count a rejected key, without a ledger query. `key_id`: the claimed id if `tenant` is unknown."""
        hour = self._clock() // HOUR_S
        if hour != self._hour:
            self._hour = hour
            self._named.clear()
        rejection = address, tenant, key_id
        if rejection not in self._named:
            if len(self._named) >= MOST_NAMED:
                rejection = OTHERS, NO_TENANT, UNKNOWN
            else:
                self._named.add(rejection)
        self._counts[rejection] += 1
        self._came.set()

    async def write(self, store: Store) -> None:
        """Write the counts. Raises StoreError; what was not written is written next time."""
        self._came.clear()
        for rejection in list(self._counts):
            address, tenant, key_id = rejection
            times = self._counts[rejection]
            if tenant == NO_TENANT:
                owner = await store.api_keys.owner_of(key_id)
                tenant, key_id = (NO_TENANT, UNKNOWN) if owner is None else (owner, key_id)
            await store.audit.record_repeated(address, tenant, ACTION, key_id, times)
            self._counts[rejection] -= times
        self._counts += Counter()  # drops the written ones

    async def run(self, store: Store) -> None:
        """Write until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(GATHER_S)
            try:
                await self.write(store)
            except StoreError as error:
                log.warning("rejected keys are not in the audit log yet: %s", error)
                self._came.set()
            await asyncio.sleep(WRITE_EVERY_S)


@asynccontextmanager
async def recording(rejected: RejectedKeys, store: Store) -> AsyncIterator[None]:
    """Record rejected keys while the block runs."""
    try:
        async with running(rejected.run(store), name="rejected-keys"):
            yield
    finally:
        with suppress(StoreError):
            await rejected.write(store)
