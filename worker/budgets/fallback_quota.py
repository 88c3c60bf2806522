"""How many jobs of a batch a step other than the first may answer, if its chain sets a share (`max_fallback_share`).

A job acquires a place before its call at a later step and keeps it until its outcome is committed. Places in use are in
Redis; used-up ones are the ledger's own count of such answers. A place is acquired first and the ledger read
afterwards, so that of two workers each sees the other: never too many, at worst too few for a moment.

A killed worker's places end with their lease. After a wipe of Redis no place is granted until every live worker has
reported those it holds.

    LimitsUnavailable   Redis or the ledger is unavailable
    QuotaUsedUp         unknown for now: calls in flight hold the last places, or Redis was wiped
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis.asyncio

from understudy.models.queue import keys
from understudy.models.records import StartedJob
from understudy.models.store import Store, StoreOutage
from understudy.worker.coalesce import Coalescer
from understudy.worker.limits.limiter import LimitsUnavailable
from understudy.worker.redis_scripts import Script, ScriptRunner, ScriptsUnavailable

PLACE_LEASE_S = 60.0
"""Renewed with every beat of the worker. A worker that cannot reach Redis for longer may lose its places to others."""

QUIET_S = 12.0
"""Beats of a worker are at most 10 seconds apart."""

READ_TOGETHER = 400
READ_AFTER_S = 0.02
LOOK_EVERY_S = 1.0
ROUNDING = 1e-9

EMPTIED = "Redis was wiped: fallbacks in flight are being counted again"
UNDER_WAY = "calls in flight may use up the batch's max_fallback_share"

Allowance = tuple[int, int]
"""For a batch: its number of jobs, and of those answered by a step other than the first."""

TAKE = Script.load("worker/budgets/fallback_take.lua")
HOLD = Script.load("worker/budgets/fallback_hold.lua")
COUNT = Script.load("worker/budgets/fallback_count.lua")
GIVE_BACK = Script.load("worker/budgets/fallback_give_back.lua")


class QuotaUsedUp(Exception):
    """Ask again in `in_s` seconds; `reason` is for people."""

    def __init__(self, reason: str, in_s: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.in_s = in_s


class FallbackQuota:
    """One worker's view of the quotas."""

    def __init__(self, redis: redis.asyncio.Redis, store: Store, *, quiet_s: float = QUIET_S) -> None:
        """`quiet_s`: after a wipe no place is granted for this long; longer than the interval of workers' beats."""
        self._scripts = ScriptRunner(redis)
        self._quiet_ms = round(quiet_s * 1000)
        self._store = store
        self._held: dict[str, str] = {}  # the batch of each place holder (a claimed job)
        self._looked: dict[str, tuple[float, int]] = {}  # by batch: when checked, the places left
        self._read: Coalescer[str, Allowance] = Coalescer(
            self._allowances, max_items=READ_TOGETHER, max_delay_s=READ_AFTER_S
        )

    async def take(self, job: StartedJob, share: float) -> bool:
        """Whether the job may be answered by a step other than its first; False: the share is used up.

        An acquired place is held until `give_back`, even if this call is cancelled midway. Raises LimitsUnavailable,
        QuotaUsedUp.
        """
        holder = _holder(job)
        if holder in self._held:
            return True
        self._held[holder] = job.batch_id
        try:
            names = [keys.PLACES_SINCE, keys.places(job.batch_id)]
            taken, for_ms = await self._ask(TAKE, names, [holder, round(PLACE_LEASE_S * 1000), self._quiet_ms])
            if not taken:
                raise QuotaUsedUp(EMPTIED, for_ms / 1000)
            left = await self._unused(job.batch_id, share)
            if 0 < left < taken:
                raise QuotaUsedUp(UNDER_WAY, LOOK_EVERY_S)
        except (LimitsUnavailable, QuotaUsedUp):
            await self.give_back(job)
            raise
        if left <= 0:
            await self.give_back(job)
        return left > 0

    async def give_back(self, job: StartedJob) -> None:
        """The job's outcome is committed, or it takes another way: release its place, if any."""
        batch_id = self._held.pop(_holder(job), None)
        if batch_id is not None:
            with suppress(LimitsUnavailable):  # the place then ends with its lease
                await self._ask(GIVE_BACK, [keys.places(batch_id)], [_holder(job)])

    async def left(self, batch_id: str, share: float) -> bool:
        """Whether the batch has places left; checked once a second. Raises LimitsUnavailable."""
        looked_at, left = self._looked.get(batch_id, (-math.inf, 0))
        if time.monotonic() - looked_at >= LOOK_EVERY_S:
            left = await self._unused(batch_id, share)
            left -= await self._ask(COUNT, [keys.places(batch_id)], [])
            self._looked = {
                known: seen for known, seen in self._looked.items() if time.monotonic() - seen[0] < LOOK_EVERY_S
            }
            self._looked[batch_id] = (time.monotonic(), left)
        return left > 0

    async def beat(self) -> None:
        """Renew what this worker holds. Raises LimitsUnavailable."""
        held: dict[str, list[str]] = defaultdict(list)
        for holder, batch_id in self._held.items():
            held[batch_id].append(holder)
        lease_ms = round(PLACE_LEASE_S * 1000)
        await asyncio.gather(
            *(self._ask(HOLD, [keys.places(batch_id)], [lease_ms, *holders]) for batch_id, holders in held.items())
        )

    async def _unused(self, batch_id: str, share: float) -> int:
        """How many of the batch's places no answer has used."""
        try:
            total, used = await self._read.add(batch_id)
        except StoreOutage as outage:
            raise LimitsUnavailable(f"the ledger cannot be read: {type(outage).__name__}") from None
        return math.floor(share * total + ROUNDING) - used

    async def _allowances(self, batches: Sequence[str]) -> list[Allowance]:
        found = await self._store.batches.fallbacks_of(sorted(set(batches)))
        return [found.get(batch_id, (0, 0)) for batch_id in batches]

    async def _ask(self, script: Script, names: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await self._scripts.run(script, names, ["", *args])
        except ScriptsUnavailable as outage:
            raise LimitsUnavailable(f"the fallback quota in Redis cannot be read: {outage}") from None


def _holder(job: StartedJob) -> str:
    """A claim of a job: after it was taken back from a worker, its place does not carry over to the next claim."""
    return f"{job.id}:{job.claim_no}"
