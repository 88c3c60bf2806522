"""Helpers for the store's tests: a batch with jobs, a worker, an outcome."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.execution import AttemptRecord, ResultRecord, Settled, StartedJob
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.jobs.views import OutputRow
from understudy.models.jobs.wait_reasons import Waiting, put_back_for
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import JobState
from understudy.models.store import LEDGER_FILE, Store, open_store
from understudy.models.store.sql import job as job_table
from understudy.models.tables import Worker

CHAIN = Chain(steps=(Step(provider="lead", model="large"), Step(provider="understudy", model="small")))
LEASE_S = 60.0
HOUR_S = 3600.0


_empty: list[Path] = []


def keep_empty_ledger(file: Path) -> None:
    """A migrated ledger of this session, for `sqlite_ledger`."""
    _empty.append(file)


@asynccontextmanager
async def sqlite_ledger(folder: Path) -> AsyncIterator[Store]:
    """The ledger in that folder. A new one is copied, which takes a tenth of the time of migrating."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LEDGER_FILE).exists():
        shutil.copy(_empty[-1], folder)
    async with open_store(None, folder) as store:
        yield store


async def new_jobs(store: Store, count: int, chain: Chain = CHAIN, **fields: Any) -> list[NewJob]:
    fields = {"expires_at": await store.now() + HOUR_S, **fields}
    return [
        NewJob(new_id("job"), '{"messages":[]}', chain, f"line-{line}", line, tokens=7, **fields)
        for line in range(1, count + 1)
    ]


async def filled_batch(store: Store, count: int, **fields: Any) -> tuple[str, list[str]]:
    """A batch that is still being filled, and the ids of its jobs."""
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, **{"expires_at": await store.now() + HOUR_S, **fields}))
    jobs = await new_jobs(store, count)
    await store.intake.add_jobs(batch_id, jobs)
    return batch_id, [each.id for each in jobs]


async def open_batch(store: Store, count: int, **fields: Any) -> tuple[str, list[str]]:
    batch_id, ids = await filled_batch(store, count, **fields)
    await store.intake.open_batch(batch_id, count)
    return batch_id, ids


async def singles(store: Store, count: int, **fields: Any) -> list[str]:
    jobs = await new_jobs(store, count, **fields)
    await store.intake.accept_jobs("default", jobs)
    return [each.id for each in jobs]


async def new_worker(store: Store, lease_s: float = LEASE_S) -> str:
    worker_id = new_id("worker")
    row = Worker(id=worker_id, host="here", pid=1, concurrency=10, started_at=0, lease_until=0)
    await store.workers.register(row, lease_s)
    return worker_id


def call(job: StartedJob, cls: FailureClass | None = None, no: int = 1, **fields: Any) -> AttemptRecord:
    status = 200 if cls is None else 500
    return AttemptRecord(new_id("att"), no, 0, "lead", "large", "main", cls, status, 120, 1.0, **fields)


def succeeded(job: StartedJob, answer: str = "yes", **fields: Any) -> Settled:
    result = ResultRecord(200, f'{{"answer":"{answer}"}}', provider="lead", model="large", key="main", **fields)
    attempts = [call(job, input_tokens=3, output_tokens=5, cached_tokens=2, reasoning_tokens=1, cost_usd=0.25)]
    return Settled(job.id, job.batch_id, job.claim_no, JobState.SUCCEEDED, attempts, result)


def failed(job: StartedJob, cls: FailureClass = FailureClass.BAD_REQUEST) -> Settled:
    result = ResultRecord(None, None, {"code": str(cls), "message": "no"}, failure=cls)
    return Settled(job.id, job.batch_id, job.claim_no, JobState.FAILED, [call(job, cls)], result)


def put_back(job: StartedJob, until: float = 0.0, reason: str | Waiting = "waits", **progress: Any) -> Settled:
    waiting = put_back_for(reason) if isinstance(reason, str) else reason
    return Settled(job.id, job.batch_id, job.claim_no, JobState.QUEUED, [], None, until, progress or None, waiting)


async def state_of(store: Store, job_id: str) -> JobState:
    view = await store.jobs.view(job_id)
    assert view is not None
    return view.state


async def request_of(store: Store, job_id: str) -> str | None:
    """The prompt of a job; None: it was removed."""
    asked = await store.reruns.asked(job_id)
    return None if asked is None else asked.body


async def crashes_of(store: Store, job_id: str) -> int:
    async with store._db.read() as connection:
        found = await connection.execute(select(job_table.c.crashes).where(job_table.c.id == job_id))
        return int(found.scalar_one())


async def run_all(store: Store, worker_id: str, ids: Sequence[str]) -> None:
    await store.claims.settle(worker_id, [succeeded(job) for job in await store.claims.start(worker_id, ids)])


async def outputs_of(store: Store, batch_id: str) -> list[OutputRow]:
    return [row async for row in store.outputs.of_batch(batch_id)]


async def part_pages(store: Store, batch_id: str, part: str) -> AsyncIterator[list[OutputRow]]:
    """The rows of a batch's output or error file, page by page, as the API reads them."""
    async for span in store.outputs.part_spans(batch_id, part):
        yield await store.outputs.part_rows(batch_id, part, span)
