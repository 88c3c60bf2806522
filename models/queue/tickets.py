"""Tickets: the RQ jobs that stand in Redis for rows of the ledger, and how they are put into and out of the queues.

This file, `worker.rq.bridge` and `worker.rq.worker` are the only ones that know RQ and its key layout (RQ 3.0).

A ticket is an RQ job whose function is `JOB_FUNCTION` and whose only argument is its own id. It carries nothing else,
so losing or doubling it costs nothing: the ledger decides whether its job may start.
"""

import json
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from redis.asyncio import Redis
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.defaults import RQ_KEY_PREFIX
from rq.suspension import WORKERS_SUSPENDED

from understudy.models.queue.keys import JOB_FUNCTION, QUEUES, in_line
from understudy.models.queue.lua_scripts import script_text
from understudy.models.queue.redis_values import text
from understudy.models.records import NewJob
from understudy.models.state import Priority

RESULT_TTL_S = 20
"""How long a finished ticket stays visible in RQ's tools. It says nothing about the job, so it need not stay long."""

FAILURE_TTL_S = 86_400
"""How long a refused ticket stays visible. RQ would keep it for a year."""

TICKET_DATA_MAX = 4_096
"""A ticket's data in bytes is far below. Whatever is longer is not unpacked."""

STAGE_MAX = 1_000
"""Tickets per script: a script of a few milliseconds is the longest that other clients of Redis should wait."""

AT_ONCE_MAX = 100
"""A job whose ticket would stand behind so many is left to the planner, by which tenants take turns: queues are served
in the order in which tickets came, and whoever submits thousands would be served before all others. Fewer than the
planner stages at least, so that nobody who goes on submitting leaves it no room."""

IN_LINE_S = 2.0
"""A tenant is in line for so long after the planner said so last, which it says with each pass."""

NO_TIMEOUT = -1
DESCRIPTION = "understudy job"

STAGE = script_text("models/queue/stage.lua")


def queue_key(queue: str) -> str:
    """The list of ticket ids that wait in a queue."""
    return f"{RQ_KEY_PREFIX}:queue:{queue}"


def rq_time(timestamp: float) -> str:
    """A unix time in seconds, the way RQ writes times into the hash of a job."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ticket_data(job_id: str) -> str:
    """What RQ's JSON serializer makes of a call: function, instance, arguments, keyword arguments."""
    return json.dumps([JOB_FUNCTION, None, [job_id], {}])


def is_ticket(job_id: str, data: bytes) -> bool:
    """Whether the data of an RQ job is the call of our function with the job's own id. Never unpickles anything."""
    if data == ticket_data(job_id).encode():
        return True  # as `stage` wrote it; RQ's own tools compress
    try:
        call = zlib.decompressobj().decompress(data, TICKET_DATA_MAX)
    except zlib.error:
        call = data[:TICKET_DATA_MAX]
    try:
        return bool(json.loads(call) == [JOB_FUNCTION, None, [job_id], {}])
    except (ValueError, RecursionError):
        return False


async def stage(
    redis: Redis,
    tickets: Sequence[tuple[str, Priority]],
    clock: Callable[[], float] = time.time,
    behind_at_most: int | None = None,
    unless: str = "",
) -> int:
    """Put tickets at the end of their queues, in the given order; return how many.

    A ticket that finished, failed or vanished before is written anew. One that waits already would wait twice,
    which costs a claim and nothing else. `behind_at_most`: one that would stand behind so many tickets of its own and
    more urgent queues is not written. `unless`: a key of Redis; while it exists nothing is written.
    """
    script = redis.register_script(STAGE)
    queues = [queue_key(queue) for queue in QUEUES]
    before_id, after_id = ticket_data("@").split("@")
    most = -1 if behind_at_most is None else behind_at_most
    lives = (NO_TIMEOUT, RESULT_TTL_S, FAILURE_TTL_S)
    call = (RQ_KEY_PREFIX, rq_time(clock()), DESCRIPTION, *lives, before_id, after_id, most, unless)
    written = 0
    for start in range(0, len(tickets), STAGE_MAX):
        chunk = tickets[start : start + STAGE_MAX]
        words = (word for job_id, priority in chunk for word in (job_id, priority.queue))
        written += await script(keys=queues, args=(*call, *words))
    return written


async def stage_at_once(
    redis: Redis, tenant: str, jobs: Sequence[NewJob], clock: Callable[[], float] = time.time
) -> int:
    """Tickets for new single jobs of a tenant, unless it is for the planner to say when it is their turn: so they start
    in milliseconds, and as many as are submitted in this way take nothing from other tenants."""
    return await stage(redis, [(job.id, job.priority) for job in jobs], clock, AT_ONCE_MAX, in_line(tenant))


async def stand_in_line(redis: Redis, tenants: Collection[str]) -> None:
    """From now on only the planner writes tickets of these tenants."""
    async with redis.pipeline(transaction=False) as pipeline:
        for tenant in tenants:
            pipeline.set(in_line(tenant), "1", px=int(IN_LINE_S * 1_000))
        await pipeline.execute()


async def staged_ids(redis: Redis) -> dict[str, list[str]]:
    """The ids that wait in each queue, in the order in which they will be claimed."""
    async with redis.pipeline(transaction=False) as pipeline:
        for queue in QUEUES:
            pipeline.lrange(queue_key(queue), 0, -1)
        waiting = await pipeline.execute()
    return {queue: [text(job_id) for job_id in ids] for queue, ids in zip(QUEUES, waiting, strict=True)}


async def tickets_waiting(redis: Redis) -> dict[str, int | None]:
    """How many tickets wait in each queue; None where Redis holds something else. Raises RedisError."""
    async with redis.pipeline(transaction=False) as pipeline:
        for queue in QUEUES:
            pipeline.llen(queue_key(queue))
        counts = await pipeline.execute(raise_on_error=False)
    for error in counts:
        if isinstance(error, Exception) and "WRONGTYPE" not in str(error):
            raise error
    return {queue: count if isinstance(count, int) else None for queue, count in zip(QUEUES, counts, strict=True)}


async def is_suspended(redis: Redis) -> bool:
    """Whether `rq suspend` holds claiming up. Raises RedisError."""
    return bool(await redis.exists(WORKERS_SUSPENDED))


async def ask_to_stop(redis: Redis, worker_name: str, job_id: str) -> None:
    """RQ's command to a worker to stop a job that it runs; one that does not run it any more ignores it."""
    command = {"command": "stop-job", "job_id": job_id}
    await redis.publish(PUBSUB_CHANNEL_TEMPLATE % worker_name, json.dumps(command))
