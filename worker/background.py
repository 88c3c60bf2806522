"""Every background loop of a worker, listed in one place: `loops`. A dead loop stops the worker loudly.

| loop | every | who | does |
|---|---|---|---|
| plan | 0.1 s, 0.3 s when idle | one worker at a time | tickets for what can start soon |
| close | 0.5 s | one worker at a time | cancel, expire and end batches, in slices |
| look back | 2 s | one worker at a time | pause batches whose latest calls were all bad requests |
| blocked | 2 s | one worker at a time | announce batches that only a person can unblock |
| rescue | a fifth of a lease, 3 s | one worker at a time | take back the jobs of dead workers |
| forget | 10 s | one worker at a time | remove the content of delivered results, and rejected batches, in slices |
| cancelled | 1 s | every worker | stop its calls whose owner cancelled |
| credentials | 2 s | every worker | share which credentials are disabled |
| leases | 1 s | every worker | renew its calls in flight, reserved money and fallbacks |
| clocks | 5 s | every worker | read the ledger's clock and Redis' |
| deliver | 0.3 s | every worker | send due webhooks |
| beat | a third of a lease, 5 s | every worker | report running jobs to RQ, latencies to the fleet |

The lease in the ledger is not here: it is renewed in a separate thread (`worker.heartbeat`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from understudy.models.cancellation import is_being_ended
from understudy.models.ledger_clock import READ_EVERY_S
from understudy.models.queue import keys
from understudy.models.store import StoreOutage
from understudy.models.tenants import CONTENT_KEPT_S
from understudy.worker.job.claim_loop import ClaimLoop
from understudy.worker.outages import OUTAGES
from understudy.worker.planner.canary import Canary
from understudy.worker.redis_scripts import Script, ScriptRunner
from understudy.worker.redis_wrong_types import repair
from understudy.worker.resources import WorkerResources
from understudy.worker.rq.bridge import Bridge
from understudy.worker.rq.worker import forget_worker

log = logging.getLogger(__name__)

RESIGN_S = 1.0
LONGEST_BEAT_S = 10.0
"""RQ expects a heartbeat of each execution at least once in 90 seconds."""

LEAD_FOR_S = 3.0
RENEW_EVERY_S = 1.0
"""The leader renews so rarely that an idle fleet causes little traffic, and early enough to keep the lock."""

LOOK_EVERY_S = 0.25
"""Other workers notice within this time that there is no leader."""

LEAD = Script.load("worker/leader.lua")


@dataclass(frozen=True, slots=True)
class Loop:
    name: str
    every_s: float | Callable[[], float]
    step: Callable[[], Awaitable[object]]
    leader_only: bool = False


class Upkeep:
    """What the loops share."""

    def __init__(
        self, worker_id: str, box: WorkerResources, bridge: Bridge, claims: ClaimLoop, in_touch: Callable[[], bool]
    ) -> None:
        """`in_touch`: this worker's own lease was renewed in time."""
        self._box = box
        self._store = box.store
        self._lead = LeaderLock(box.leases.scripts, worker_id)
        self._lease_s = box.settings.worker.lease_s
        self._bridge = bridge
        self._claims = claims
        box.tools.limiter.count(claims.calls_in_flight)
        self._canary = Canary(box.store, box.settings.batches)
        self.planner = box.planner(self._canary)
        self._in_touch = in_touch
        self._ledger_seen_since = time.monotonic()

    def loops(self) -> list[Loop]:
        return [
            Loop("plan", self.planner.rest_s, self.planner.pass_once, leader_only=True),
            Loop("close", 0.5, self._close, leader_only=True),
            Loop("look back", 2.0, self._canary.look_back, leader_only=True),
            Loop("blocked", 2.0, self.planner.tell_blocked, leader_only=True),
            Loop("rescue", self._lease_s / 5, self._rescue, leader_only=True),
            Loop("forget", 10.0, self._forget, leader_only=True),
            Loop("cancelled", 1.0, self._stop_cancelled),
            Loop("credentials", 2.0, lambda: self._box.tools.fleet.share(self._store)),
            Loop("leases", 1.0, self._box.leases.beat),
            Loop("clocks", READ_EVERY_S, self._box.compare_clocks),
            Loop("deliver", 0.3, self._box.deliverer.pass_once),
            Loop("beat", min(self._lease_s / 3, LONGEST_BEAT_S), self._beat),
        ]

    async def run(self) -> None:
        """Run all loops until cancelled, or until one of them fails in a way it cannot survive."""
        async with asyncio.TaskGroup() as group:
            for loop in self.loops():
                group.create_task(self._forever(loop), name=loop.name)

    async def _forever(self, loop: Loop) -> None:
        suffering = False
        while not is_being_ended():
            try:
                if not loop.leader_only or await self._lead.held():
                    await loop.step()
                suffering = False
            except OUTAGES as outage:
                if isinstance(outage, StoreOutage):
                    self.lost_the_ledger()
                if not suffering:
                    log.warning(
                        "Background loop %s waits for a store to come back: %s", loop.name, type(outage).__name__
                    )
                suffering = True
                await repair(self._box.redis, outage)
            if not is_being_ended():
                await asyncio.sleep(loop.every_s() if callable(loop.every_s) else loop.every_s)

    def lost_the_ledger(self) -> None:
        """The ledger did not accept a write: by now leases of live workers may have expired."""
        self._ledger_seen_since = time.monotonic()

    async def resign(self) -> None:
        """Give up leadership at once, so that another worker need not wait for the lock to expire."""
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(RESIGN_S):
                await self._lead.resign()

    async def _close(self) -> None:
        while await self._store.batch_lifecycle.cancel_slice():
            await asyncio.sleep(0)
        while expired := await self._store.batch_lifecycle.expire_slice():
            self._box.announcer.tell(expired)
            await asyncio.sleep(0)
        self._box.announcer.tell(await self._store.batch_lifecycle.close_finished())

    async def _forget(self) -> None:
        content, how = self._store.content, self._box.settings.store_content
        while await content.forget_delivered(how, CONTENT_KEPT_S) and not is_being_ended():
            await asyncio.sleep(0)
        while await self._store.filling.clear_never_opened() and not is_being_ended():
            await asyncio.sleep(0)

    async def _rescue(self) -> None:
        """Not before a whole lease of unbroken contact: after an outage every lease looks expired."""
        if not self._may_rescue():
            return
        for worker_id, jobs in await self._store.workers.rescue(self._may_rescue):
            log.warning("Worker %s is gone; its %d unfinished jobs run again", worker_id, jobs)
            await forget_worker(self._box.redis, worker_id)

    def _may_rescue(self) -> bool:
        return self._in_touch() and time.monotonic() - self._ledger_seen_since >= self._lease_s

    async def _stop_cancelled(self) -> None:
        if self._claims.runs:
            for job_id in await self._store.jobs.cancelled_running():
                self._claims.cancel(job_id)

    async def _beat(self) -> None:
        await self._bridge.beat()
        await self._box.tools.choice.latencies.share()


class LeaderLock:
    """A short lock in Redis under which one worker plans and cleans up for all.

    Two workers that both believe to be leader for a second, after a wipe of Redis, do no harm: a ticket written twice
    costs a claim. redis-py's `Lock` would wait forever where a key of that name has no end, which only other programs
    write.
    """

    def __init__(self, scripts: ScriptRunner, worker_id: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._scripts = scripts
        self._worker_id = worker_id
        self._monotonic = monotonic
        self._held = False
        self._known_until = float("-inf")

    async def held(self) -> bool:
        """Whether this worker is the leader; becomes leader if there is none. Raises RedisUnavailable."""
        now = self._monotonic()
        if now >= self._known_until:
            self._known_until = float("-inf")  # if Redis does not answer
            self._held = bool(await self._ask(round(LEAD_FOR_S * 1000)))
            self._known_until = now + (RENEW_EVERY_S if self._held else LOOK_EVERY_S)
        return self._held

    async def resign(self) -> None:
        """Give up leadership at once, so that another worker need not wait for the lock to expire."""
        self._held, self._known_until = False, float("inf")
        await self._ask(0)

    async def _ask(self, for_ms: int) -> Any:
        return await self._scripts.run(LEAD, [keys.PLANNER], [self._worker_id, for_ms])
