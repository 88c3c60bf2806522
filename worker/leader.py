"""Leadership: a short lock in Redis under which one worker plans and cleans up for all.

Two workers that both believe to be leader for a second, after a wipe of Redis, do no harm: a ticket written twice costs
a claim. redis-py's `Lock` would wait forever where a key of that name has no end, which only other programs write.
"""

import time
from collections.abc import Callable
from typing import Any

from understudy.models.queue import keys
from understudy.worker.redis_scripts import Script, ScriptRunner

LEAD_FOR_S = 3.0
RENEW_EVERY_S = 1.0
"""The leader renews so rarely that an idle fleet causes little traffic, and early enough to keep the lock."""

LOOK_EVERY_S = 0.25
"""Other workers notice within this time that there is no leader."""

LEAD = Script.load("worker/leader.lua")


class LeaderLock:
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
