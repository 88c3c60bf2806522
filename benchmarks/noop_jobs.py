"""No-op jobs through Redis and the ledger, compared with RQ's SimpleWorker: jobs per second of one process.

    python benchmarks/noop_jobs.py [--jobs 20000] [--stock-jobs 2000] [--redis-url URL]

Measured from the first claim to the last finished ticket; for both, the tickets are queued beforehand:

    bookkeeping   claim, guarded start, settle (job, result, attempt, tally), finish; the outcome is made up immediately
    whole job     the same with everything in between: limits reserved and released in Redis, the request written and
                  the answer read by the adapter, prices; only the HTTP exchange is replaced by an in-memory answer

The stock worker calls a no-op function and writes no ledger. The ledger is SQLite in a temporary folder, and also
PostgreSQL in a new database if DATABASE_URL is set. Without --redis-url, a private Redis server is started; a given
database is FLUSHED. Trust the ratio rather than the absolute numbers.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import uvloop
from claim_finish import through_a_stock_worker
from own_servers import own_database, own_redis
from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.execution import AttemptRecord, ResultRecord, Settled, StartedJob
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.queue.tickets import stage
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import JobState, Priority
from understudy.models.store import Store, open_store
from understudy.worker.job.claim_loop import ClaimLoop
from understudy.worker.providers.base import Endpoint, WireRequest
from understudy.worker.providers.client import ProviderClient
from understudy.worker.resources import open_toolbox, worker_row
from understudy.worker.rq.bridge import Bridge

TARGET_RATIO = 10
CONCURRENCY = 1_000
SLICE = 2_000
LEASE_S = 600.0
CHAIN = Chain(steps=(Step(provider="local", model="m"),))
PROMPT = '{"messages":[{"role":"user","content":"' + "word " * 50 + '"}]}'
ANSWER = {
    "id": "cmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 50}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 50, "total_tokens": 110},
}
BODY = orjson.dumps(ANSWER).decode()


class AnswersAtOnce(ProviderClient):
    """A transport without network: every request is answered from memory."""

    async def send(
        self, request: WireRequest, endpoint: Endpoint, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        return 200, {"content-type": "application/json"}, BODY.encode()


class NothingToDo(ClaimLoop):
    """Every job has its outcome as soon as it is claimed."""

    async def _outcome_of(self, job: StartedJob) -> Settled:
        attempt = AttemptRecord(new_id("att"), 1, 0, "local", "m", "none", None, 200, 1, time.time())
        result = ResultRecord(200, BODY, provider="local", model="m", key="none")
        return Settled(job.id, job.batch_id, job.claim_no, JobState.SUCCEEDED, [attempt], result)


async def accept_jobs(store: Store, count: int) -> tuple[str, list[str]]:
    batch_id, deadline = new_id("batch"), time.time() + 86_400
    await store.intake.create_batch(NewBatch(batch_id, expires_at=deadline))
    jobs = [NewJob(new_id("job"), PROMPT, CHAIN, f"line-{n}", n, tokens=60, expires_at=deadline) for n in range(count)]
    for first in range(0, count, SLICE):
        await store.intake.add_jobs(batch_id, jobs[first : first + SLICE])
    await store.intake.open_batch(batch_id, count)
    return batch_id, [job.id for job in jobs]


async def jobs_per_s(settings: Settings, redis_url: str, count: int, loop: type[ClaimLoop]) -> float:
    worker_id = new_id("wrk")
    async with (
        Redis.from_url(redis_url) as redis,
        Bridge(redis, worker_id, time.time) as bridge,
        open_toolbox(settings, redis, worker_id, CONCURRENCY) as box,
    ):
        await redis.flushdb()
        batch_id, ids = await accept_jobs(box.store, count)
        await stage(redis, [(job_id, Priority.BULK) for job_id in ids])
        await box.store.workers.register(worker_row(worker_id, CONCURRENCY), LEASE_S)
        tools = replace(box.tools, client=AnswersAtOnce(CONCURRENCY))
        claims = loop(worker_id, bridge, box.store, tools, CONCURRENCY)
        started = time.perf_counter()
        await claims.run(asyncio.Event(), refill=nothing_more)
        await claims.drain(LEASE_S, asyncio.Event())
        taken_s = time.perf_counter() - started
        view = await box.store.batches.view(batch_id)
        if view is None or view.counts[JobState.SUCCEEDED] != count:
            raise RuntimeError("not every job succeeded: the measurement is invalid")
        return count / taken_s


async def nothing_more() -> int:
    return 0


@contextmanager
def ledgers() -> Iterator[list[tuple[str, Settings]]]:
    """SQLite in a temporary folder, and a new database on the server given by DATABASE_URL."""
    document = {"providers": {"local": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}}}
    address = os.environ.get("DATABASE_URL")
    with tempfile.TemporaryDirectory(prefix="us-") as folder:
        sqlite = Settings.model_validate({**document, "data": Path(folder)})
        if not address:
            yield [("SQLite", sqlite)]
            return
        with own_database(address) as url:
            asyncio.run(migrate(url))
            yield [("SQLite", sqlite), ("PostgreSQL", sqlite.model_copy(update={"database_url": url}))]


async def migrate(url: str) -> None:
    async with open_store(url, Path(), migrate=True):
        return


def compare(redis_url: str, jobs: int, stock_jobs: int) -> None:
    stock = through_a_stock_worker(redis_url, stock_jobs)
    print(f"{'stock SimpleWorker, no ledger':<34}{stock:>8,.0f} jobs/s")
    with ledgers() as settings_of, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name, settings in settings_of:
            for what, loop in (("bookkeeping", NothingToDo), ("whole job", ClaimLoop)):
                ours = runner.run(jobs_per_s(settings, redis_url, jobs, loop))
                print(f"{f'understudy, {name}, {what}':<34}{ours:>8,.0f} jobs/s{ours / stock:>8.1f} times")
    print(f"target: {TARGET_RATIO} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--stock-jobs", type=int, default=2_000)
    parser.add_argument("--redis-url", help="this database is FLUSHED; by default, a private server is started")
    arguments = parser.parse_args()
    if arguments.redis_url:
        compare(arguments.redis_url, arguments.jobs, arguments.stock_jobs)
    else:
        with own_redis() as url:
            compare(url, arguments.jobs, arguments.stock_jobs)


if __name__ == "__main__":
    main()
