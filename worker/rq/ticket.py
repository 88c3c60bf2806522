"""What a stock RQ worker runs: a single ticket, with all resources opened and closed around it.

Slow and correct: `rq worker -S json interactive normal bulk` drains the queues with it. Such a worker also runs any
other function found in Redis, so use it only on a queue that no one else can write to. There are no background loops
here, so a job that must wait is waited for in place, and no ticket ends before the next ones are staged.
"""

import asyncio
import os
from contextlib import suppress

import redis.asyncio

from understudy.models.config.settings import Settings, load_settings
from understudy.models.ids import new_id
from understudy.models.jobs.execution import StartedJob
from understudy.models.queue.tickets import staged_ids
from understudy.models.state import JobState
from understudy.models.store import StoreOutage
from understudy.worker.job.run import JobRun
from understudy.worker.job.settle import Settler
from understudy.worker.planner.canary import Canary
from understudy.worker.redis_scripts import RedisUnavailable
from understudy.worker.resources import WorkerResources, open_toolbox, worker_row

LEASE_BEATS = 3
"""Heartbeats within one lease."""

LOOK_EVERY_S = 1.0


async def run_ticket(job_id: str) -> None:
    """Run one job to its end. Settings come from the environment and `understudy.toml`, as for any worker."""
    settings = load_settings(None, os.environ)
    if settings.redis_url is None:
        raise RuntimeError("REDIS_URL is not set; a stock rq worker needs it to find the limits")
    worker_id = new_id("rq")
    async with (
        redis.asyncio.Redis.from_url(settings.redis_url) as connection,
        open_toolbox(settings, connection, worker_id, concurrency=1) as box,
    ):
        await box.store.workers.register(worker_row(worker_id, 1), settings.worker.lease_s)
        beating = asyncio.create_task(_beat(box, worker_id, settings))
        try:
            await _run_to_the_end(box, worker_id, job_id)
            await stage_the_next(box)
        finally:
            beating.cancel()
            await box.store.workers.remove(worker_id)


async def _run_to_the_end(box: WorkerResources, worker_id: str, job_id: str) -> None:
    """Start, run and settle; if the job is put back, wait until it is due and start it again."""
    settler = Settler(worker_id, box.store, box.announcer.tell)
    while started := await _start_when_due(box, worker_id, job_id):
        run = JobRun(started, await box.store.get_chain(started.chain_id), box.tools)
        box.tools.limiter.count(run.calls_in_flight)
        settled = await run.run()
        await settler.add(settled)
        await box.tools.fallback_quota.release(started)
        with suppress(StoreOutage):
            await box.tools.fleet.share(box.store)
        if settled.state is not JobState.QUEUED:
            return
        await asyncio.sleep(max(settled.not_before - await box.store.now(), 0.0))


async def stage_the_next(box: WorkerResources) -> None:
    """There may be no other worker to do it later: wait until a remaining job can start."""
    planner = box.planner(Canary(box.store, box.settings.batches))
    while not await planner.pass_once() and not await _tickets_wait(box) and await _jobs_wait(box):
        await asyncio.sleep(LOOK_EVERY_S)


async def _tickets_wait(box: WorkerResources) -> bool:
    return any((await staged_ids(box.redis)).values())


async def _jobs_wait(box: WorkerResources) -> bool:
    return bool(await box.store.planning.lanes())


async def _start_when_due(box: WorkerResources, worker_id: str, job_id: str) -> StartedJob | None:
    started = await box.store.claims.start(worker_id, [job_id])
    return started[0] if started else None


async def _beat(box: WorkerResources, worker_id: str, settings: Settings) -> None:
    while True:
        await asyncio.sleep(settings.worker.lease_s / LEASE_BEATS)
        with suppress(StoreOutage):
            await box.store.workers.beat(worker_id, settings.worker.lease_s)
        with suppress(RedisUnavailable):
            await box.leases.beat()
