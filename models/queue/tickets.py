"""Tickets: RQ jobs in Redis that stand for rows of the ledger, and how they enter and leave the queues.

Only this file, `worker.rq.bridge` and `worker.rq.worker` know RQ and its key layout (RQ 3.0).

A ticket is an RQ job whose function is `JOB_FUNCTION` and whose only argument is its own id. It carries nothing else,
so losing or duplicating it is harmless: the ledger decides whether its job may start.
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

from understudy.models.jobs.submission import NewJob
from understudy.models.queue.keys import JOB_FUNCTION, QUEUES, in_line
from understudy.models.queue.lua_scripts import script_text
from understudy.models.queue.redis_values import text
from understudy.models.state import Priority

RESULT_TTL_S = 20
"""How long a finished ticket stays visible in RQ's tools. It says nothing about the job, so it can be short."""

FAILURE_TTL_S = 86_400
"""How long a rejected ticket stays visible. RQ's default is a year."""

TICKET_DATA_MAX = 4_096
"""A ticket's data in bytes is far below. Longer data is not parsed."""

STAGE_MAX = 1_000
"""Tickets per script: other clients of Redis should wait a few milliseconds at most."""

AT_ONCE_MAX = 100
"""A job whose ticket would be behind this many others is left to the planner, which shares fairly among tenants:
queues are served in order of arrival, so a tenant that submits thousands would be served before all others. Less
than the planner stages at least, so that a continuous submitter always leaves it room."""

IN_LINE_S = 2.0
"""Seconds that a tenant stays in line after the planner's last announcement, which it repeats with each pass."""

NO_TIMEOUT = -1
DESCRIPTION = "understudy job"

STAGE = script_text("models/queue/stage.lua")


def queue_key(queue: str) -> str:
    """The list of waiting ticket ids of a queue."""
    return f"{RQ_KEY_PREFIX}:queue:{queue}"


def rq_time(timestamp: float) -> str:
    """A unix time in seconds, formatted like RQ's times in the hash of a job."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ticket_data(job_id: str) -> str:
    """A call as encoded by RQ's JSON serializer: function, instance, arguments, keyword arguments."""
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
    """Append tickets to their queues, in the given order; return how many.

    A ticket that finished, failed or vanished before is written again. One that is already waiting would wait twice,
    which costs only a claim. `behind_at_most`: a ticket with this many others ahead, in its own and more urgent queues,
    is not written. `unless`: a Redis key; while it exists nothing is written.
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
    """Write tickets for new single jobs of a tenant, unless the planner decides about their turn: so they start in
    milliseconds, and however many are submitted this way, other tenants lose nothing."""
    return await stage(redis, [(job.id, job.priority) for job in jobs], clock, AT_ONCE_MAX, in_line(tenant))


async def leave_staging_to_planner(redis: Redis, tenants: Collection[str]) -> None:
    """From now on only the planner writes tickets of these tenants."""
    async with redis.pipeline(transaction=False) as pipeline:
        for tenant in tenants:
            pipeline.set(in_line(tenant), "1", px=int(IN_LINE_S * 1_000))
        await pipeline.execute()


async def staged_ids(redis: Redis) -> dict[str, list[str]]:
    """The ids waiting in each queue, in the order in which they will be claimed."""
    async with redis.pipeline(transaction=False) as pipeline:
        for queue in QUEUES:
            pipeline.lrange(queue_key(queue), 0, -1)
        waiting = await pipeline.execute()
    return {queue: [text(job_id) for job_id in ids] for queue, ids in zip(QUEUES, waiting, strict=True)}


async def tickets_waiting(redis: Redis) -> dict[str, int | None]:
    """The number of tickets waiting in each queue; None where Redis holds something else. Raises RedisError."""
    async with redis.pipeline(transaction=False) as pipeline:
        for queue in QUEUES:
            pipeline.llen(queue_key(queue))
        counts = await pipeline.execute(raise_on_error=False)
    for error in counts:
        if isinstance(error, Exception) and "WRONGTYPE" not in str(error):
            raise error
    return {queue: count if isinstance(count, int) else None for queue, count in zip(QUEUES, counts, strict=True)}


async def is_suspended(redis: Redis) -> bool:
    """Whether `rq suspend` has suspended claiming. Raises RedisError."""
    return bool(await redis.exists(WORKERS_SUSPENDED))


async def ask_to_stop(redis: Redis, worker_name: str, job_id: str) -> None:
    """Send RQ's command to a worker to stop a job; it is ignored if the job no longer runs."""
    command = {"command": "stop-job", "job_id": job_id}
    await redis.publish(PUBSUB_CHANNEL_TEMPLATE % worker_name, json.dumps(command))
