"""Records rejected API keys in the audit log: promptly, but a flood takes only a few rows an hour.

The tenant of a known key sees the entry. Any other presented value is never recorded, because it may be a secret.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from understudy.models.store import Store, StoreError

log = logging.getLogger(__name__)

ACTION = "key.refused"
UNKNOWN = "unknown key"
NO_TENANT = ""
MOST_NAMED = 20
"""Distinct callers and keys recorded per hour and API process; the rest are only counted."""

OTHERS = "other callers"
HOUR_S = 3_600.0
GATHER_S = 0.2
WRITE_EVERY_S = 2.0

Refusal = tuple[str, str, str]
"""Address of the caller, tenant of the key, and id of the key."""


class RefusedKeys:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hour = 0.0
        self._named: set[Refusal] = set()
        self._counts: Counter[Refusal] = Counter()
        self._came = asyncio.Event()

    def note(self, address: str, tenant: str = NO_TENANT, key_id: str = UNKNOWN) -> None:
        """Count a rejected key, without a ledger query. `key_id`: the claimed id if `tenant` is unknown."""
        hour = self._clock() // HOUR_S
        if hour != self._hour:
            self._hour = hour
            self._named.clear()
        refusal = address, tenant, key_id
        if refusal not in self._named:
            if len(self._named) >= MOST_NAMED:
                refusal = OTHERS, NO_TENANT, UNKNOWN
            else:
                self._named.add(refusal)
        self._counts[refusal] += 1
        self._came.set()

    async def write(self, store: Store) -> None:
        """Write the counts. Raises StoreError; what was not written is written next time."""
        self._came.clear()
        for refusal in list(self._counts):
            address, tenant, key_id = refusal
            times = self._counts[refusal]
            if tenant == NO_TENANT:
                owner = await store.api_keys.owner_of(key_id)
                tenant, key_id = (NO_TENANT, UNKNOWN) if owner is None else (owner, key_id)
            await store.audit.record_repeated(address, tenant, ACTION, key_id, times)
            self._counts[refusal] -= times
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
async def recording(refused: RefusedKeys, store: Store) -> AsyncIterator[None]:
    """Record rejected keys while the block runs."""
    task = asyncio.create_task(refused.run(store), name="refused-keys")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        with suppress(StoreError):
            await refused.write(store)
