"""The worker's use of RQ: claim tickets, close them, wait for more, send heartbeats, listen to commands.

Only this file with its scripts, `worker.rq.worker` and `models.queue.tickets` know RQ and its key layout (RQ 3.0). RQ's
own `Worker` spends 49 commands on a job; here one script claims up to 100 tickets and one closes up to 200. The keys
they leave are the same, so `rq info`, `rq.command` and dashboards work; the differences are listed, each with its
reason, in tests/integration/providers/test_rq_contract.py.

The vocabulary is RQ's: a worker runs several *executions* of jobs at once.
"""

import asyncio
import json
import logging
import zlib
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.typing import EncodableT, FieldT
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.defaults import DEFAULT_WORKER_TTL, RQ_KEY_PREFIX
from rq.results import Result
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from understudy.models.queue.keys import JOB_FUNCTION, QUEUES
from understudy.models.queue.lua_scripts import script_text
from understudy.models.queue.tickets import (
    FAILURE_TTL_S,
    RESULT_TTL_S,
    TICKET_DATA_MAX,
    is_ticket,
    queue_key,
    rq_time,
)
from understudy.worker.redis_wrong_types import repair
from understudy.worker.rq.queue_watcher import QueueWatcher

log = logging.getLogger(__name__)

CLAIM = script_text("worker/rq/claim.lua")
CLOSE = script_text("worker/rq/close.lua")
BEAT = script_text("worker/rq/beat.lua")

CLAIM_MAX = 100
NO_BOUNDS: Mapping[str, int] = {}
CLOSE_MAX = 200
BEAT_MAX = 200

EXECUTION_TTL_S = 90
"""RQ's own for a job without timeout: it considers an execution without a heartbeat for this long abandoned."""

WORKER_TTL_S = DEFAULT_WORKER_TTL + 60
SUSPENDED_POLL_S = 1.0
COMMANDS_POLL_S = 3.0
RECONNECT_S = 1.0

REFUSAL = f"Rejected: a ticket calls {JOB_FUNCTION} with its own id as the only argument, and this job does not."


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a ticket by this worker. `started_at` is in unix seconds."""

    id: str
    job_id: str
    queue: str
    started_at: float


class Ending(NamedTuple):
    """How a ticket is closed: the name of its status and registry, and what RQ keeps of it."""

    status: str
    result_type: int
    ttl_s: int
    counter: str
    exc_string: str = ""


FINISHED = Ending("finished", Result.Type.SUCCESSFUL.value, RESULT_TTL_S, "successful_job_count")
REFUSED = Ending(
    "failed",
    Result.Type.FAILED.value,
    FAILURE_TTL_S,
    "failed_job_count",
    b64encode(zlib.compress(REFUSAL.encode())).decode(),
)


@dataclass(frozen=True, slots=True)
class StopJob:
    """RQ was asked to stop a job that this worker runs."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Shutdown:
    """RQ was asked to shut this worker down."""


Command = StopJob | Shutdown


class Bridge:
    """One worker's side of RQ. Use it as a context manager: it keeps listening connections open between waits.

    `redis` returns bytes (`decode_responses=False`) and has a socket timeout above `queue_watcher.LISTEN_S`. `clock`
    gives unix seconds. `birth` is the worker's registration as returned by `rq.worker.BaseWorker.serialize`; it is
    written again with each heartbeat, because otherwise a wiped Redis would never show this worker again.
    """

    def __init__(
        self,
        redis: Redis,
        worker_name: str,
        clock: Callable[[], float],
        queues: Sequence[str] = QUEUES,
        birth: Mapping[FieldT, EncodableT] | None = None,
    ) -> None:
        self.worker_name = worker_name
        self.queues = tuple(queues)
        self._redis = redis
        self._clock = clock
        self._birth: dict[FieldT, EncodableT] = dict(birth) if birth else {"queues": ",".join(self.queues)}
        self._executions: dict[str, deque[Execution]] = {}
        self._ended: dict[Ending, list[Execution]] = {FINISHED: [], REFUSED: []}
        self._doorbell = QueueWatcher(redis)
        self._suspended = False
        self._claim = redis.register_script(CLAIM)
        self._close = redis.register_script(CLOSE)
        self._beat = redis.register_script(BEAT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._doorbell.__aexit__(kind, error, traceback)

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Claimed and unfinished executions, as far as this process knows. May be read from another thread."""
        return tuple(execution for same_job in list(self._executions.values()) for execution in list(same_job))

    async def claim(self, n: int, at_most: Mapping[str, int] = NO_BOUNDS) -> list[str]:
        """Start up to `n` waiting tickets (at most `CLAIM_MAX`) and return their ids, the most urgent queue first.

        `at_most` limits the number from a queue.

        Pop and start are one script: no kill can lose a ticket between them. A ticket that is not exactly ours is
        rejected: it moves to RQ's failed registry and its function is never run. While RQ is suspended there is nothing
        to claim.
        """
        now = self._clock()
        reply = await self._claim(
            args=(
                RQ_KEY_PREFIX,
                self.worker_name,
                min(n, CLAIM_MAX),
                uuid4().hex[:28],
                rq_time(now),
                now,
                EXECUTION_TTL_S,
                TICKET_DATA_MAX,
                *(word for queue in self.queues for word in (queue, at_most.get(queue, CLAIM_MAX))),
            )
        )
        self._suspended = reply is None
        ours: dict[str, None] = {}
        for job_id, execution_id, queue, data in _rows(reply or []):
            execution = Execution(execution_id.decode(), job_id.decode(), queue.decode(), now)
            if not is_ticket(execution.job_id, data):
                log.error("Ticket %s in queue %s: %s", execution.job_id, execution.queue, REFUSAL)
                self._ended[REFUSED].append(execution)
            elif execution.job_id in ours:
                self._ended[FINISHED].append(execution)
            else:
                self._executions.setdefault(execution.job_id, deque()).append(execution)
                ours[execution.job_id] = None
        # The caller must learn what was claimed even if Redis goes away now; the rest is closed with the next
        # heartbeat.
        with suppress(RedisError):
            await self._close_ended()
        return list(ours)

    async def finish(self, ids: Sequence[str]) -> None:
        """Close the tickets of jobs whose outcome is committed, or which returned to the ledger.

        Each id ends the oldest execution that `claim` started for it; unknown ids are skipped. After a RedisError this
        need not be repeated: the tickets are closed with the next `finish`, `claim` or `beat`.
        """
        for job_id in ids:
            executions = self._executions.get(job_id)
            if executions:
                self._ended[FINISHED].append(executions.popleft())
            if not executions:
                self._executions.pop(job_id, None)
        await self._close_ended()

    async def wait(self, timeout_s: float, without: Collection[str] = ()) -> None:
        """Return when a queue, of all but `without`, has a ticket, or after `timeout_s`; takes nothing.

        May return spuriously.

        Raises redis.exceptions.RedisError if Redis cannot be reached.
        """
        if self._suspended:
            await asyncio.sleep(min(timeout_s, SUSPENDED_POLL_S))
            return
        await self._doorbell.wait(timeout_s, [queue_key(queue) for queue in self.queues if queue not in without])

    async def repair(self, error: BaseException) -> None:
        """After an error of `claim`, `wait` or `beat`: make sure that the content of Redis does not raise it again."""
        await repair(self._redis, error)

    async def beat(self) -> None:
        """Report to RQ that this worker and its executions are alive. Every 5 to 10 seconds, at least once in 90."""
        now = self._clock()
        key = worker_key(self.worker_name)
        running = self.executions
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping={**self._birth, "last_heartbeat": rq_time(now)})
            pipeline.expire(key, WORKER_TTL_S)
            pipeline.expire(f"{key}:executions", WORKER_TTL_S)
            pipeline.sadd(REDIS_WORKER_KEYS, key)
            for queue in self.queues:
                pipeline.sadd(WORKERS_BY_QUEUE_KEY % queue, key)
                # RQ drops expired entries only when someone looks; at our pace they would pile up until then.
                for registry in ("finished", "failed", "wip"):
                    pipeline.zremrangebyscore(f"{RQ_KEY_PREFIX}:{registry}:{queue}", 0, now)
            for start in range(0, len(running), BEAT_MAX):
                chunk = running[start : start + BEAT_MAX]
                words = (word for execution in chunk for word in (execution.job_id, execution.id, execution.queue))
                await self._beat(args=(RQ_KEY_PREFIX, rq_time(now), now, EXECUTION_TTL_S, *words), client=pipeline)
            await pipeline.execute()
        await self._close_ended()

    async def commands(self) -> AsyncIterator[Command]:
        """Commands sent to this worker by `rq.command`, endlessly; survives the loss of the connection."""
        cut_off = False
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(PUBSUB_CHANNEL_TEMPLATE % self.worker_name)
                    cut_off = False
                    while True:
                        message = await pubsub.get_message(timeout=COMMANDS_POLL_S)
                        if message and (command := self._understand(message["data"])):
                            yield command
            except RedisError:
                if not cut_off:
                    log.warning("RQ commands do not reach this worker until Redis is back")
                cut_off = True
                await asyncio.sleep(RECONNECT_S)

    def _understand(self, payload: bytes) -> Command | None:
        try:
            command = json.loads(payload)
            name, job_id = command["command"], command.get("job_id")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            log.warning("A message on this worker's RQ channel is not a command; ignored.")
            return None
        if name == "shutdown":
            return Shutdown()
        if name in ("stop-job", "stop-execution") and isinstance(job_id, str) and job_id in self._executions:
            return StopJob(job_id)
        log.warning("An RQ command is ignored: it does not concern a job that this worker runs.")
        return None

    async def _close_ended(self) -> None:
        for ending, executions in self._ended.items():
            while executions:
                chunk, executions[:CLOSE_MAX] = executions[:CLOSE_MAX], []
                now = self._clock()
                words = (word for e in chunk for word in (e.job_id, e.id, e.queue, e.started_at))
                try:
                    await self._close(args=(RQ_KEY_PREFIX, self.worker_name, rq_time(now), now, *ending, *words))
                except BaseException:
                    executions.extend(chunk)
                    raise


def worker_key(worker_name: str) -> str:
    return f"{RQ_KEY_PREFIX}:worker:{worker_name}"


def _rows(words: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    return zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True)
