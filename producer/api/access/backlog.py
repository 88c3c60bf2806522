"""The backlog as one API process knows it: a cached reading of the ledger, plus what it accepted since.

Jobs accepted by other API processes are seen at the next reading. Until then they are the error of every number here,
and the amount by which a limit can be exceeded.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from understudy.models.store import Store
from understudy.models.tenants import MINUTE_S, TenantStore, TenantUse

KEPT_S = 1.0
"""Minimum seconds between readings by a process, and for each tenant with limits."""

RELAXED_S = 10.0
"""The same when the limits are far away, so that single requests do not pay for readings."""

READING_SHARE = 20
"""A reading is cached for this multiple of its duration, so that readings take at most a twentieth of the time."""

LONGEST_S = 15.0
LONGEST_STORED_S = 300.0
"""Maximum cache time of the stored size, which may take reading millions of rows and changes slowly."""

NEAR = 0.5
"""Fraction of the limit from which on usage is read more often."""

STRIDE = 0.1
"""Fraction of a tenant's limit per minute that a process accepts before it syncs with the ledger."""


class QueuedJobs:
    """Numbers of waiting jobs, by tenant."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._read: dict[str, int] | None = None
        self._read_at = 0.0
        self._took_s = 0.0
        self._since: Counter[str] = Counter()
        self._before: Counter[str] = Counter()  # accepted before the reading in progress
        self._reading = asyncio.Lock()

    def of(self, tenant: str) -> int:
        return (self._read or {}).get(tenant, 0) + self._since[tenant] + self._before[tenant]

    def total(self) -> int:
        return sum((self._read or {}).values()) + self._since.total() + self._before.total()

    def accepted(self, tenant: str, jobs: int) -> None:
        """Count accepted jobs; negative for jobs that were not accepted after all."""
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
    """The usage of one tenant."""

    def __init__(self, tenant: str, clock: Callable[[], float]) -> None:
        self._tenant = tenant
        self._clock = clock
        self._read: TenantUse | None = None
        self._read_at = 0.0
        self._since: Counter[int] = Counter()
        self._untold: Counter[int] = Counter()
        self._reading = asyncio.Lock()

    def accepted(self, at: float, jobs: int) -> None:
        """Count accepted jobs; negative for jobs that were not accepted after all."""
        if self._read is not None and self._read.limits.jobs_per_minute is not None:
            self._since[int(at // MINUTE_S)] += jobs
            self._untold[int(at // MINUTE_S)] += jobs

    def minutes(self, at: float) -> tuple[int, int]:
        """Jobs accepted in this minute, and in the previous one."""
        minute, read = int(at // MINUTE_S), self._read
        known: Counter[int] = Counter()
        if read is not None:
            known.update({read.minute: read.accepted_this_minute, read.minute - 1: read.accepted_last_minute})
        return known[minute] + self._since[minute], known[minute - 1] + self._since[minute - 1]

    async def freshen(self, store: Store, writer: str, at: float) -> TenantUse:
        """The tenant's limits and usage, possibly cached. Raises StoreError."""
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
    """The stored content of one tenant."""

    def __init__(self, tenant: str, clock: Callable[[], float]) -> None:
        self._tenant = tenant
        self._clock = clock
        self._read: TenantStore | None = None
        self._read_at = 0.0
        self._took_s = 0.0
        self._since = TenantStore()
        self._before = TenantStore()  # accepted before the reading in progress
        self._reading = asyncio.Lock()
        self.arriving = 0  # bytes of uploads in progress

    def accepted(self, stored_bytes: int, batches: int = 0) -> None:
        """Count stored content; negative for content that was not stored after all."""
        self._since = _sum(self._since, TenantStore(stored_bytes, batches))

    async def freshen(self, store: Store, most: TenantStore) -> TenantStore:
        """The last reading plus what was accepted since. Read less often far from the limit.

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
    """The backlog of all tenants, as one API process knows it."""

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
        """Jobs finished per second over the whole ledger; needed only when something is full. Raises StoreError."""
        if self._drain is None or self._clock() >= self._drain[0]:
            self._drain = self._clock() + RELAXED_S, await store.tenants.ended_per_s(at)
        return self._drain[1]
