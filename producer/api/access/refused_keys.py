"""Keys that were refused, for the audit: each is told of soon, and a flood of them takes a few rows an hour.

Of a key that is known here its tenant sees it. What else was presented is never repeated: it may be somebody's secret.
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
UNKNOWN = "a key that is not known here"
NO_TENANT = ""
MOST_NAMED = 20
"""So many different callers and keys are told apart within an hour by one API process; the others are counted."""

OTHERS = "callers beyond those that are named"
HOUR_S = 3_600.0
GATHER_S = 0.2
WRITE_EVERY_S = 2.0

Refusal = tuple[str, str, str]
"""Who presented it, whose it is, and which key."""


class RefusedKeys:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hour = 0.0
        self._named: set[Refusal] = set()
        self._counts: Counter[Refusal] = Counter()
        self._came = asyncio.Event()

    def note(self, address: str, tenant: str = NO_TENANT, key_id: str = UNKNOWN) -> None:
        """`key_id` of a key that is only claimed, when nobody knows whose it is. Costs no look into the ledger."""
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
        """Raises StoreError; what is not written then is written the next time."""
        self._came.clear()
        for refusal in list(self._counts):
            address, tenant, key_id = refusal
            times = self._counts[refusal]
            if tenant == NO_TENANT:
                owner = await store.tenants.owner_of_key(key_id)
                tenant, key_id = (NO_TENANT, UNKNOWN) if owner is None else (owner, key_id)
            await store.audit.record_repeated(address, tenant, ACTION, key_id, times)
            self._counts[refusal] -= times
        self._counts += Counter()  # without those that are written

    async def run(self, store: Store) -> None:
        """Until cancelled."""
        while True:
            await self._came.wait()
            await asyncio.sleep(GATHER_S)
            try:
                await self.write(store)
            except StoreError as error:
                log.warning("refused keys are not in the audit yet: %s", error)
                self._came.set()
            await asyncio.sleep(WRITE_EVERY_S)


@asynccontextmanager
async def recording(refused: RefusedKeys, store: Store) -> AsyncIterator[None]:
    """Refused keys are written down for as long as the block runs."""
    task = asyncio.create_task(refused.run(store), name="refused-keys")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        with suppress(StoreError):
            await refused.write(store)
