"""Time of the ledger per job, at growing size: `python benchmarks/store.py [ROWS [LANES]]`.

In addition, LANES single jobs of different tenants are waiting.

Uses SQLite in a temporary folder, and also PostgreSQL in a new database if DATABASE_URL is set. Prints microseconds per
job for writes (time of a group divided by its size), and milliseconds for reads.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from own_servers import own_database

from understudy.models.ids import new_id
from understudy.models.jobs.execution import AttemptRecord, ResultRecord, Settled, StartedJob
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import JobState
from understudy.models.store import Store, open_store
from understudy.models.tables import Worker

CHAIN = Chain(steps=(Step(provider="lead", model="large"),))
PROMPT = '{"messages":[{"role":"user","content":"' + "word " * 100 + '"}]}'
ANSWER = '{"choices":[{"message":{"role":"assistant","content":"' + "word " * 200 + '"}}]}'
GROUP = 200
ADD_GROUP = 2_000


def outcome(job: StartedJob) -> Settled:
    attempt = AttemptRecord(new_id("att"), 1, 0, "lead", "large", "main", None, 200, 900, 1.0, cost_usd=0.001)
    result = ResultRecord(200, ANSWER, provider="lead", model="large", key="main", latency_ms=900)
    return Settled(job.id, job.batch_id, job.claim_no, JobState.SUCCEEDED, [attempt], result)


async def timed(act: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await act()
    return time.perf_counter() - start


async def measure(store: Store, rows: int, lanes: int) -> None:
    batch_id, worker_id = new_id("batch"), new_id("worker")
    deadline = time.time() + 86_400
    await store.intake.create_batch(NewBatch(batch_id, expires_at=deadline))
    spent = {"add_jobs": 0.0, "start": 0.0, "settle": 0.0}
    for first in range(0, rows, ADD_GROUP):
        jobs = [NewJob(new_id("job"), PROMPT, CHAIN, f"line-{first + n}", first + n) for n in range(ADD_GROUP)]
        spent["add_jobs"] += await timed(lambda jobs=jobs: store.intake.add_jobs(batch_id, jobs))
    await store.intake.open_batch(batch_id, rows)
    singles = [NewJob(new_id("job"), PROMPT, CHAIN, "", tenant=f"t{n}", expires_at=deadline) for n in range(lanes)]
    await store.intake.accept_jobs("default", singles)
    await store.workers.register(
        Worker(id=worker_id, host="here", pid=1, concurrency=GROUP, started_at=0, lease_until=0), 3_600
    )
    (lane,) = [each for each in await store.planning.lanes() if each.batch_id == batch_id]
    settled = min(rows, 20_000)
    for _ in range(0, settled, GROUP):
        ids = [head.id for head in await store.planning.heads(lane, GROUP)]
        started: list[StartedJob] = []
        start = time.perf_counter()
        started = await store.claims.start(worker_id, ids)
        spent["start"] += time.perf_counter() - start
        outcomes = [outcome(job) for job in started]
        spent["settle"] += await timed(lambda outcomes=outcomes: store.claims.settle(worker_id, outcomes))
    report(store.dialect, "add_jobs", spent["add_jobs"] / rows)
    report(store.dialect, "start", spent["start"] / settled)
    report(store.dialect, "settle", spent["settle"] / settled)
    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "heads (200)": lambda: store.planning.heads(lane, 200),
        f"ready_lanes ({lanes + 1:,})": lambda: store.planning.ready_lanes(50),
        "batch_view": lambda: store.batches.view(batch_id),
        "latency_percentiles": lambda: store.jobs.latency_percentiles(batch_id),
        "close_batches": store.batch_lifecycle.close_finished,
        "expire_slice (none)": store.batch_lifecycle.expire_slice,
        "rescue (none)": store.workers.rescue,
        "beat": lambda: store.workers.beat(worker_id, 3_600),
    }
    for name, read in reads.items():
        await read()
        print(f"{store.dialect:<11} {name:<22} {await timed(read) * 1e3:>9.2f} ms")
    await store.batch_lifecycle.cancel(batch_id)
    took_s = await timed(store.batch_lifecycle.cancel_slice)
    print(f"{store.dialect:<11} {'cancel_slice (2,000)':<22} {took_s * 1e3:>9.2f} ms")


def report(dialect: str, name: str, seconds: float) -> None:
    print(f"{dialect:<11} {name:<22} {seconds * 1e6:>9.1f} µs a job")


async def run(url: str | None, rows: int, lanes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(url, Path(folder), migrate=True) as store:
            await measure(store, rows, lanes)


def main() -> None:
    rows, lanes = (int(word) for word in [*sys.argv[1:], *("20000", "100")[len(sys.argv) - 1 :]])
    asyncio.run(run(None, rows, lanes))
    if address := os.environ.get("DATABASE_URL"):
        with own_database(address) as url:
            asyncio.run(run(url, rows, lanes))


main()
