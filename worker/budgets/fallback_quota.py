"""How many jobs of a batch a step other than the first may answer, if its chain sets a share (`max_fallback_share`).

A job reserves a fallback before its call at a later step and keeps it until its outcome is committed. Reserved ones
are counted in Redis (`worker.leases`); used-up ones are the ledger's own count of such answers. A fallback is reserved
first and the ledger read afterwards, so that of two workers each sees the other: never too many, at worst too few for a
moment. After a wipe of Redis none is reserved until every live worker has told its own (`worker.redis_wiped`).

    QuotaUsedUp   unknown for now: calls in flight have reserved the last fallbacks, or Redis was wiped
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from understudy.models.jobs.execution import StartedJob
from understudy.models.queue import keys
from understudy.models.store import Store
from understudy.worker.concurrency import Coalescer
from understudy.worker.leases import Leases
from understudy.worker.redis_scripts import RedisUnavailable, Script
from understudy.worker.redis_wiped import ALL_TOLD_S

FALLBACK_LEASE_S = 60.0
"""A worker that cannot reach Redis for longer may lose its fallbacks to others."""

READ_TOGETHER = 400
READ_AFTER_S = 0.02
LOOK_EVERY_S = 1.0
ROUNDING = 1e-9

EMPTIED = "Redis was wiped: fallbacks in flight are being counted again"
UNDER_WAY = "calls in flight may use up the batch's max_fallback_share"

Allowance = tuple[int, int]
"""For a batch: its number of jobs, and of those answered by a step other than the first."""

ACQUIRE = Script.load("worker/budgets/fallback_acquire.lua")
RELEASE = Script.load("worker/budgets/settle.lua")
RESERVED = Script.load("models/queue/leased.lua")


class QuotaUsedUp(Exception):
    """Ask again in `in_s` seconds; `reason` is for people."""

    def __init__(self, reason: str, in_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.in_s = in_s


class FallbackQuota:
    """One worker's view of the quotas."""

    def __init__(self, leases: Leases, store: Store, *, quiet_s: float = ALL_TOLD_S) -> None:
        """`quiet_s`: after a wipe no fallback is reserved for this long."""
        self._leases = leases
        self._lease_ms, self._quiet_ms = round(FALLBACK_LEASE_S * 1000), round(quiet_s * 1000)
        self._store = store
        self._reserved: dict[str, str] = {}  # the key in Redis, by claimed job
        self._looked: dict[str, tuple[float, int]] = {}  # by batch: when checked, the fallbacks left
        self._read: Coalescer[str, Allowance] = Coalescer(
            self._allowances, max_items=READ_TOGETHER, max_delay_s=READ_AFTER_S
        )
        leases.count(lambda: Counter(self._reserved.values()), self._lease_ms)

    async def acquire(self, job: StartedJob, share: float) -> bool:
        """Whether the job may be answered by a step other than its first; False: the share is used up.

        What is reserved for it is kept until `release`. Raises RedisUnavailable, StoreOutage, QuotaUsedUp.
        """
        if _claim(job) in self._reserved:
            return True
        try:
            reserved = await self._acquire(job)
            left = await self._unused(job.batch_id, share)
            if 0 < left < reserved:
                raise QuotaUsedUp(UNDER_WAY, LOOK_EVERY_S)
        except Exception:
            await self.release(job)
            raise
        if left <= 0:
            await self.release(job)
        return left > 0

    async def _acquire(self, job: StartedJob) -> int:
        """Returns how many fallbacks of its batch are reserved then."""
        name, leases = keys.fallbacks(job.batch_id), self._leases
        async with leases.changing([name]):
            args = [leases.worker_id, self._lease_ms, self._quiet_ms]
            reserved, for_ms = await leases.scripts.run(ACQUIRE, [keys.KNOWN_SINCE, name], args)
            if not reserved:
                raise QuotaUsedUp(EMPTIED, for_ms / 1000)
            self._reserved[_claim(job)] = name
        return int(reserved)

    async def release(self, job: StartedJob) -> None:
        """The job's outcome is committed, or it takes another way: release its fallback, if any."""
        name, leases = self._reserved.get(_claim(job)), self._leases
        if name is not None:
            with suppress(RedisUnavailable):  # the next beat corrects it
                async with leases.changing([name], released=lambda: self._reserved.pop(_claim(job), None)):
                    await leases.scripts.run(RELEASE, [name], [leases.worker_id, self._lease_ms, 1, 0])

    async def has_left(self, batch_id: str, share: float) -> bool:
        """Whether the batch has fallbacks left; checked once a second. Raises RedisUnavailable, StoreOutage."""
        looked_at, left = self._looked.get(batch_id, (-math.inf, 0))
        if time.monotonic() - looked_at >= LOOK_EVERY_S:
            left = await self._unused(batch_id, share)
            left -= int(await self._leases.scripts.run(RESERVED, [keys.fallbacks(batch_id)], []))
            self._looked = {
                known: seen for known, seen in self._looked.items() if time.monotonic() - seen[0] < LOOK_EVERY_S
            }
            self._looked[batch_id] = (time.monotonic(), left)
        return left > 0

    async def _unused(self, batch_id: str, share: float) -> int:
        """How many of the batch's fallbacks no answer has used."""
        total, used = await self._read.add(batch_id)
        return math.floor(share * total + ROUNDING) - used

    async def _allowances(self, batches: Sequence[str]) -> list[Allowance]:
        found = await self._store.batches.fallbacks_of(sorted(set(batches)))
        return [found.get(batch_id, (0, 0)) for batch_id in batches]


def _claim(job: StartedJob) -> str:
    """After a job was taken back from a worker, what was reserved for it does not carry over to the next claim."""
    return f"{job.id}:{job.claim_no}"
