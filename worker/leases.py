"""What this worker has reserved of amounts that the fleet shares in Redis: calls in flight, money, fallbacks.

Each is a hash with one field per worker, which ends with its lease (`models/queue/parts/leased.lua`): a killed worker
leaks nothing. `beat` renews all of this worker's, and corrects what a lost message, or a wipe of Redis, left wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager

import redis.asyncio

from understudy.worker.redis_scripts import Script, ScriptRunner

RENEW = Script.load("worker/leases_renew.lua")

Amounts = Callable[[], Mapping[str, float]]
"""What this worker has reserved now, by key in Redis."""


class Leases:
    """One worker's. Those who reserve share it, and with it their round trips to Redis."""

    def __init__(self, redis: redis.asyncio.Redis, worker_id: str, lease_s: float = 15.0) -> None:
        self.scripts = ScriptRunner(redis)
        self.worker_id = worker_id
        self.lease_ms = round(lease_s * 1000)
        self._lock = RWLock()
        self._counts: list[tuple[Amounts, int]] = []
        self._changed: set[str] = set()  # keys that may hold something of this worker

    def count(self, amounts: Amounts, lease_ms: int | None = None) -> None:
        """From now on `beat` renews these amounts as well. Each key belongs to one of them."""
        self._counts.append((amounts, self.lease_ms if lease_ms is None else lease_ms))

    @asynccontextmanager
    async def changing(self, names: Iterable[str], released: Callable[[], object] | None = None) -> AsyncIterator[None]:
        """Around a script that changes what this worker has reserved, so that no beat comes in between.

        `released` takes a released amount from its count; it is called in any case, even if this is cancelled.
        """
        with ExitStack() as stack:
            if released is not None:
                stack.callback(released)
            async with self._lock.passing():
                stack.close()
                self._changed.update(names)
                yield

    async def beat(self) -> None:
        """Renew the leases, and correct the amounts. Waits for scripts in progress. Raises RedisUnavailable."""
        async with self._lock.alone():
            amounts = dict.fromkeys(sorted(self._changed), (0.0, self.lease_ms))
            for counted, lease_ms in self._counts:
                amounts |= {name: (amount, lease_ms) for name, amount in counted().items()}
            if amounts:
                pairs = (number for pair in amounts.values() for number in pair)
                await self.scripts.run(RENEW, list(amounts), [self.worker_id, *pairs])
                self._changed = {name for name, (amount, _) in amounts.items() if amount}


class RWLock:
    """A readers-writer lock: many pass, or one is alone."""

    def __init__(self) -> None:
        self._inside = 0
        self._one = asyncio.Lock()
        self._empty = _event_that_is_set()
        self._open = _event_that_is_set()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        while not self._open.is_set():  # it may have been closed again before this task woke up
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Waits for those inside; newcomers wait."""
        async with self._one:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()


def _event_that_is_set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
