"""A worker class that RQ's own command line can start and RQ's own tools can see, with an asyncio loop inside."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop
from redis import Redis as SyncRedis
from redis import SSLConnection
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError, ResponseError
from redis.sentinel import SentinelConnectionPool
from rq.connections import get_connection_kwargs
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, RQ_KEY_PREFIX
from rq.serializers import JSONSerializer
from rq.worker.base import BaseWorker, DequeueStrategy, WorkerStatus
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from understudy.models.queue.keys import QUEUES
from understudy.models.queue.lua_scripts import script_text
from understudy.worker.redis_wrong_types import drop_misfits, is_misread
from understudy.worker.rq.bridge import CLOSE_MAX, Bridge, worker_key
from understudy.worker.rq.queue_watcher import LISTEN_S

log = logging.getLogger(__name__)

FORGET = script_text("worker/rq/forget.lua")

SOCKET_TIMEOUT_S = LISTEN_S + 7
CONNECT_TIMEOUT_S = 5
HEALTH_CHECK_S = 15

AGAIN_S = 0.5
"""Seconds between attempts to register while another program writes to our keys in Redis."""

RECONNECT = ConstantBackoff(0.05), 1
"""A lost connection is opened once more, at once. redis-py would try for seconds, and slots would wait."""

CARRIED_OVER = frozenset({"host", "port", "db", "username", "password", "credential_provider", "protocol"})
"""What defines a connection of redis-py. Everything else is state of its pool, or about synchronous sockets."""


class RegisteredWorker(BaseWorker):
    """Registers with RQ, runs `main` in an event loop, and unregisters. Subclasses implement `main` and need no
    knowledge of RQ.

    `rq worker -w <subclass> interactive normal bulk` starts it; so does `Subclass(queues, connection=...).work()`. It
    runs what `Bridge.claim` admits and therefore has no horse, no death penalty and no scheduler. RQ's maintenance of
    registries is left out too: it unpickles, blocks, and recovers jobs, which is our rescue's duty.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # RQ's default would unpickle what it finds in Redis.
        super().__init__(*args, **{**kwargs, "serializer": JSONSerializer})

    async def main(self, redis: Redis, bridge: Bridge, *, burst: bool) -> int:
        """Claim and finish tickets until asked to stop; return how many. Install signal handlers here.

        With `burst`, return when the queues are empty. On return everything claimed should be finished: the rest is
        deleted from Redis, so that the planner stages it again.
        """
        raise NotImplementedError

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Run until `main` returns; return whether there was work. Arguments as of `rq.worker.BaseWorker.work`."""
        if max_jobs or max_idle_time or with_scheduler or dequeue_strategy != DequeueStrategy.DEFAULT:
            log.warning("Ignored: this worker has no job limit, idle limit, scheduler or dequeue strategy of RQ's.")
        self.bootstrap(logging_level, date_format, log_format)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(self._live(burst)) > 0
        finally:
            self._sign_off()

    async def _live(self, burst: bool) -> int:
        async with async_redis(self.connection) as redis:
            try:
                async with Bridge(redis, self.name, time.time, self.queue_names(), self.serialize()) as bridge:
                    await _first_beat(bridge)
                    return await self.main(redis, bridge, burst=burst)
            finally:
                # Without Redis there is nothing to release, and what `main` returned or raised must not be lost.
                with suppress(RedisError):
                    await forget_executions(redis, self.name)

    def _sign_off(self) -> None:
        register_death: Callable[[], None] = self.register_death
        try:
            register_death()
        except RedisError:
            log.warning("Worker %s could not sign off: no connection to Redis. RQ forgets it in minutes.", self.name)

    def bootstrap(
        self,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Like RQ's, but idle from the start, and robust against foreign data at its keys."""
        while True:
            try:
                super().bootstrap(logging_level, date_format, log_format)
                self.set_state(WorkerStatus.IDLE)
            except ResponseError as error:
                if not is_misread(error):
                    raise
                asyncio.run(self._make_room())
                time.sleep(AGAIN_S)
            else:
                return

    async def _make_room(self) -> None:
        async with async_redis(self.connection) as redis:
            await drop_misfits(redis)
            await redis.delete(self.key)  # half a registration, which RQ would take for another worker's

    def subscribe(self) -> None:
        """No-op: `Bridge.commands` listens, in the event loop rather than in RQ's thread."""

    def unsubscribe(self) -> None:
        """No-op, like `subscribe`."""


async def _first_beat(bridge: Bridge) -> None:
    while True:
        try:
            return await bridge.beat()
        except ResponseError as error:
            if not is_misread(error):
                raise
            await bridge.repair(error)
            await asyncio.sleep(AGAIN_S)


async def forget_executions(redis: Redis, worker_name: str) -> None:
    """Delete what a worker left started, tickets included, so that the planner can stage them again."""
    forget = redis.register_script(FORGET)
    entries = list(await redis.smembers(f"{worker_key(worker_name)}:executions"))
    for start in range(0, len(entries), CLOSE_MAX):
        await forget(args=(RQ_KEY_PREFIX, worker_name, *entries[start : start + CLOSE_MAX]))


async def forget_worker(redis: Redis, worker_name: str) -> None:
    """Delete everything that a dead worker left in RQ's keys."""
    await forget_executions(redis, worker_name)
    key = worker_key(worker_name)
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.delete(key, f"{key}:executions")
        pipeline.srem(REDIS_WORKER_KEYS, key)
        for queue in QUEUES:
            pipeline.srem(WORKERS_BY_QUEUE_KEY % queue, key)
        await pipeline.execute()


def async_redis(connection: SyncRedis) -> Redis:
    """An asyncio client for the server, database and credentials of a synchronous one.

    Raises ValueError for a connection through Sentinel, whose asyncio counterpart cannot be derived from it.
    """
    if isinstance(connection.connection_pool, SentinelConnectionPool):
        raise ValueError("RQ's Sentinel settings are not supported by this worker: start it with `understudy worker`.")
    kwargs = get_connection_kwargs(connection)
    carried = {name: value for name, value in kwargs.items() if name in CARRIED_OVER or name.startswith("ssl_")}
    return Redis(
        **carried,
        ssl=issubclass(connection.connection_pool.connection_class, SSLConnection),
        unix_socket_path=kwargs.get("path"),
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        health_check_interval=HEALTH_CHECK_S,
        retry=Retry(*RECONNECT),
    )
