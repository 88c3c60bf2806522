"""Waiting for jobs and batches to end, with a single ledger query per second for all waiting callers.

    ended(id, timeout_s)    returns the moment the job or batch has ended

Workers publish finished ids in Redis. The ledger query finds those that were not published or got lost. For a new
waiter it runs at once, after the waiter is registered, so that no end is missed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.cancellation import end, is_being_ended
from understudy.models.logs import about_many
from understudy.models.queue import keys
from understudy.models.store import Store, StoreError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
RECONNECT_S = 0.5
LISTEN_S = 1.0


class Waiters:
    """All waiting callers of one API process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._new: set[str] = set()
        self._somebody_new = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def ended(self, id_: str, timeout_s: float) -> bool:
        """True as soon as the job or batch has ended; False after the timeout."""
        event = asyncio.Event()
        self._register(id_, event)
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        finally:
            self._forget(id_, event)
        return True

    def tell(self, ids: Iterable[str]) -> None:
        """Wake the callers that wait for these ids, which have ended."""
        for id_ in ids:
            for event in self._waiting.get(id_, ()):
                event.set()

    @asynccontextmanager
    async def listening(self, redis: Redis) -> AsyncIterator[None]:
        """Listen to what workers publish while the block runs."""
        listener = asyncio.create_task(self._listen(redis), name="hear-of-ends")
        try:
            yield
        finally:
            await end([listener, *([self._looking] if self._looking else [])])

    def _register(self, id_: str, event: asyncio.Event) -> None:
        self._waiting.setdefault(id_, set()).add(event)
        self._new.add(id_)
        self._somebody_new.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_somebody_waits(), name="look-for-ends")

    def _forget(self, id_: str, event: asyncio.Event) -> None:
        events = self._waiting[id_]
        events.discard(event)
        if not events:
            del self._waiting[id_]
            self._new.discard(id_)
        if not self._waiting:
            self._somebody_new.set()

    async def _look_while_somebody_waits(self) -> None:
        due_at = asyncio.get_running_loop().time() + LOOK_EVERY_S
        while self._waiting and not is_being_ended():
            self._somebody_new.clear()
            ids, self._new = self._new, set()
            if asyncio.get_running_loop().time() >= due_at:
                ids = set(self._waiting)
                due_at = asyncio.get_running_loop().time() + LOOK_EVERY_S
            await self._look(ids)
            try:
                async with asyncio.timeout_at(due_at):
                    await self._somebody_new.wait()
            except TimeoutError:
                continue

    async def _look(self, ids: Iterable[str]) -> None:
        try:
            self.tell(await self._store.jobs.ended_among(list(ids)))
        except StoreError as error:
            with about_many():
                log.warning("the ledger cannot be read, callers keep waiting: %s", error)

    async def _listen(self, redis: Redis) -> None:
        suffering = False
        while not is_being_ended():
            try:
                async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(keys.ENDED)
                    suffering = False
                    while not is_being_ended():
                        message = await pubsub.get_message(timeout=LISTEN_S)
                        if message is not None:
                            self.tell(message["data"].decode(errors="replace").split())
            except (RedisError, OSError) as error:
                if not suffering:
                    log.warning("Redis is unreachable, polling the ledger for finished jobs: %s", type(error).__name__)
                suffering = True
            if not is_being_ended():
                await asyncio.sleep(RECONNECT_S)
