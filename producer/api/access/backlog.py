"""What one API process knows of the room that is left: the ledger as it was read lately, and what was accepted since.

Other API processes are seen when the ledger is read again. What they accept in between is the error of every number
here, and the most by which a limit can be passed.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from understudy.models.store import Store
from understudy.models.tenants import MINUTE_S, TenantStore, TenantUse

KEPT_S = 1.0
"""The ledger is read at most once in so many seconds by a process, and for each tenant with limits."""

RELAXED_S = 10.0
"""As long as that when the limits are far, so that single requests do not pay for it."""

READING_SHARE = 20
"""A slow reading is kept for so many times its own length: it never takes more than a twentieth of the time."""

LONGEST_S = 15.0
LONGEST_STORED_S = 300.0
"""What is stored is read off millions of rows where a tenant has so many, and changes by little."""

NEAR = 0.5
"""The part of the system's limit from which on its jobs are counted closely."""

STRIDE = 0.1
"""The part of a tenant's minute that a process accepts before it tells the ledger and asks what others accepted."""


class QueuedJobs:
    """How many jobs wait, by tenant."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._read: dict[str, int] | None = None
        self._read_at = 0.0
        self._took_s = 0.0
        self._since: Counter[str] = Counter()
        self._before: Counter[str] = Counter()  # accepted before the reading that goes on just now
        self._reading = asyncio.Lock()

    def of(self, tenant: str) -> int:
        return (self._read or {}).get(tenant, 0) + self._since[tenant] + self._before[tenant]

    def total(self) -> int:
        return sum((self._read or {}).values()) + self._since.total() + self._before.total()

    def accepted(self, tenant: str, jobs: int) -> None:
        """Negative for jobs that were not accepted after all."""
        self._since[tenant] += jobs

    async def freshen(self, store: Store, closely: bool) -> None:
        """Raises StoreError."""
        if not self._stale(closely) or (self._read is not None and self._reading.locked()):
            return
        async with self._reading:
            if self._stale(closely):
                began = self._clock()
                self._before.update(self._since)
                self._since.clear()
                self._read = await store.tenants.queued()
                self._before.clear()
                self._read_at, self._took_s = self._clock(), self._clock() - began

    def _stale(self, closely: bool) -> bool:
        kept_s = min(LONGEST_S, max(KEPT_S if closely else RELAXED_S, READING_SHARE * self._took_s))
        return self._read is None or self._clock() - self._read_at >= kept_s


class AcceptedJobs:
    """What one tenant used."""

    def __init__(self, tenant: str, clock: Callable[[], float]) -> None:
        self._tenant = tenant
        self._clock = clock
        self._read: TenantUse | None = None
        self._read_at = 0.0
        self._since: Counter[int] = Counter()
        self._untold: Counter[int] = Counter()
        self._reading = asyncio.Lock()

    def accepted(self, at: float, jobs: int) -> None:
        """Negative for jobs that were not accepted after all."""
        if self._read is not None and self._read.limits.jobs_per_minute is not None:
            self._since[int(at // MINUTE_S)] += jobs
            self._untold[int(at // MINUTE_S)] += jobs

    def minutes(self, at: float) -> tuple[int, int]:
        """Jobs accepted in this minute, and in the last."""
        minute, read = int(at // MINUTE_S), self._read
        known: Counter[int] = Counter()
        if read is not None:
            known.update({read.minute: read.accepted_this_minute, read.minute - 1: read.accepted_last_minute})
        return known[minute] + self._since[minute], known[minute - 1] + self._since[minute - 1]

    async def freshen(self, store: Store, writer: str, at: float) -> TenantUse:
        """The tenant's limits and use, read lately. Raises StoreError."""
        if self._read is not None and (not self._stale() or self._reading.locked()):
            return self._read
        async with self._reading:
            if self._read is None or self._stale():
                await self._tell(store, writer)
                read = await store.tenants.use(self._tenant, at)
                self._since = Counter(self._untold)
                self._read, self._read_at = read, self._clock()
            return self._read

    def _stale(self) -> bool:
        if self._read is None:
            return True
        limits, age_s = self._read.limits, self._clock() - self._read_at
        if limits.jobs_per_minute is not None and self._untold.total() >= max(1, STRIDE * limits.jobs_per_minute):
            return True
        limited = limits.jobs_per_minute is not None or limits.usd_per_month is not None
        return age_s >= (KEPT_S if limited else RELAXED_S)

    async def _tell(self, store: Store, writer: str) -> None:
        telling, self._untold = self._untold, Counter()
        if not any(telling.values()):
            return
        try:
            await store.tenants.record_accepted(self._tenant, writer, telling)
        except BaseException:
            self._untold.update(telling)
            raise


class StoredContent:
    """What one tenant has in store."""

    def __init__(self, tenant: str, clock: Callable[[], float]) -> None:
        self._tenant = tenant
        self._clock = clock
        self._read: TenantStore | None = None
        self._read_at = 0.0
        self._took_s = 0.0
        self._since = TenantStore()
        self._before = TenantStore()  # accepted before the reading that goes on just now
        self._reading = asyncio.Lock()
        self.arriving = 0  # bytes of uploads under way

    def accepted(self, stored_bytes: int, batches: int = 0) -> None:
        """Negative for what was not kept after all."""
        self._since = _sum(self._since, TenantStore(stored_bytes, batches))

    async def freshen(self, store: Store, most: TenantStore) -> TenantStore:
        """As it was read lately, with what was accepted since. Far from what is allowed it is read less often.

        Raises StoreError.
        """
        if self._stale(most) and not (self._read is not None and self._reading.locked()):
            async with self._reading:
                if self._stale(most):
                    began = self._clock()
                    self._before, self._since = _sum(self._before, self._since), TenantStore()
                    self._read = await store.tenants.stored(self._tenant)
                    self._before = TenantStore()
                    self._read_at, self._took_s = self._clock(), self._clock() - began
        return self._known()

    def _known(self) -> TenantStore:
        known = _sum(_sum(self._read or TenantStore(), self._before), self._since)
        return _sum(known, TenantStore(self.arriving))

    def _stale(self, most: TenantStore) -> bool:
        known = self._known()
        near = known.stored_bytes >= NEAR * most.stored_bytes or known.open_batches >= NEAR * most.open_batches
        kept_s = min(LONGEST_STORED_S, max(KEPT_S if near else RELAXED_S, READING_SHARE * self._took_s))
        return self._read is None or self._clock() - self._read_at >= kept_s


def _sum(one: TenantStore, other: TenantStore) -> TenantStore:
    return TenantStore(one.stored_bytes + other.stored_bytes, one.open_batches + other.open_batches)


class Backlogs:
    """All that one API process knows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.waiting = QueuedJobs(clock)
        self._used: dict[str, AcceptedJobs] = {}
        self._stored: dict[str, StoredContent] = {}
        self._drain: tuple[float, float] | None = None

    def used(self, tenant: str) -> AcceptedJobs:
        return self._used.setdefault(tenant, AcceptedJobs(tenant, self._clock))

    def stored(self, tenant: str) -> StoredContent:
        return self._stored.setdefault(tenant, StoredContent(tenant, self._clock))

    async def drain_per_s(self, store: Store, at: float) -> float:
        """How many jobs of the whole ledger end per second; asked only when something is full. Raises StoreError."""
        if self._drain is None or self._clock() >= self._drain[0]:
            self._drain = self._clock() + RELAXED_S, await store.tenants.ended_per_s(at)
        return self._drain[1]
