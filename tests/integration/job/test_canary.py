"""The first jobs of a batch run alone; if they all fail in one way, the batch pauses instead of sending the rest."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ledger_help import (
    HOUR_S,
    call,
    failed,
    new_jobs,
    new_worker,
    open_batch,
    put_back,
    run_all,
    sqlite_ledger,
    succeeded,
)
from run_help import Stage, budget_sync_of, chain, planner_of, stage, without_slow_start

from understudy.models.config.settings import BatchSettings, Settings
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.execution import Settled, StartedJob
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.submission import NewBatch
from understudy.models.queue.tickets import queue_key, staged_ids
from understudy.models.routing.chain import Chain
from understudy.models.state import BatchState, Priority
from understudy.models.store import Store
from understudy.worker.planner.canary import PATIENCE_S, Canary
from understudy.worker.planner.planner import Planner
from understudy.worker.resources import WorkerResources
from understudy.worker.rq.ticket import stage_the_next

LINES = 5
SETTINGS = BatchSettings(canary_lines=LINES, bad_requests_in_a_row=8)
ALPHA, BETA = chain("alpha/m"), chain("beta/m")
BAD, FILTERED = FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def paused(store: Store, batch_id: str) -> str | None:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view.paused


def failed_at(job: StartedJob, cls: FailureClass = BAD, message: str = "no") -> Settled:
    """As a worker writes it: with its calls and the provider's words."""
    outcome = failed(job, cls)
    assert outcome.result is not None
    outcome.result.error = {"code": str(cls), "message": message, "extra_fields": {"step": "lead/large"}}
    outcome.result.step = "lead/large"
    outcome.attempts = [call(job, cls, message=message)]
    return outcome


async def fail(store: Store, worker: str, ids: list[str], *classes: FailureClass, message: str = "no") -> None:
    jobs = await store.claims.start(worker, ids)
    assert len(jobs) == len(ids)
    kinds = (classes * len(jobs))[: len(jobs)]
    await store.claims.settle(worker, [failed_at(job, cls, message) for job, cls in zip(jobs, kinds, strict=True)])


async def test_a_batch_whose_first_jobs_all_fail_alike_pauses_and_says_how(store: Store) -> None:
    batch_id, ids = await open_batch(store, 20)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await fail(store, worker, ids[: LINES - 1], BAD)
    assert await canary.rooms() == {batch_id: 1}
    assert await paused(store, batch_id) is None
    await fail(store, worker, ids[LINES - 1 : LINES], BAD)
    assert await canary.rooms() == {batch_id: 0}
    reason = await paused(store, batch_id)
    assert reason == "the first 5 jobs all failed: bad_request at lead/large"
    view = await store.batches.view(batch_id)
    assert view is not None and view.pause_kind is PauseKind.CANARY
    assert await store.claims.start(worker, ids[LINES:]) == []
    assert await canary.rooms() == {}


async def test_what_the_provider_said_is_neither_in_the_reason_nor_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id, ids = await open_batch(store, 20)
    with caplog.at_level(logging.INFO):
        await fail(store, await new_worker(store), ids[:LINES], BAD, message="bad prompt: QUOTED")
        await Canary(store, SETTINGS).rooms()
    assert "QUOTED" not in (await paused(store, batch_id) or "QUOTED")
    assert batch_id in caplog.text and "QUOTED" not in caplog.text


async def test_one_success_ends_the_watch(store: Store) -> None:
    batch_id, ids = await open_batch(store, 20)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await fail(store, worker, ids[:3], BAD)
    await run_all(store, worker, ids[3:4])
    assert await canary.rooms() == {}
    await fail(store, worker, ids[4:12], FILTERED)
    assert await canary.rooms() == {}
    assert await paused(store, batch_id) is None


async def test_jobs_that_fail_differently_prove_nothing(store: Store) -> None:
    batch_id, ids = await open_batch(store, 20)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await fail(store, worker, ids[:LINES], BAD, FILTERED)
    assert await canary.rooms() == {}
    await fail(store, worker, ids[LINES : 2 * LINES], BAD)
    assert await canary.rooms() == {}
    assert await paused(store, batch_id) is None


async def test_only_the_first_to_end_are_judged(store: Store) -> None:
    """When it is examined, other jobs in flight may have failed in another way, or even succeeded."""
    batch_id, ids = await open_batch(store, 20)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await fail(store, worker, ids[:LINES], BAD)
    await fail(store, worker, ids[LINES : LINES + 2], FILTERED)
    await canary.rooms()
    assert "bad_request" in (await paused(store, batch_id) or "")


async def test_a_small_batch_just_ends(store: Store) -> None:
    batch_id, ids = await open_batch(store, LINES)
    canary = Canary(store, SETTINGS)
    assert await canary.rooms() == {}
    await fail(store, await new_worker(store), ids, BAD)
    await canary.rooms()
    await store.batch_lifecycle.close_finished()
    view = await store.batches.view(batch_id)
    assert view is not None and (view.state, view.paused) == (BatchState.COMPLETED, None)


async def test_jobs_that_were_put_back_count_for_nothing(store: Store) -> None:
    batch_id, ids = await open_batch(store, 20)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    jobs = await store.claims.start(worker, ids[:LINES])
    assert await canary.rooms() == {batch_id: 0}
    await store.claims.settle(worker, [put_back(job, until=2e9) for job in jobs])
    assert await canary.rooms() == {batch_id: LINES}
    assert await paused(store, batch_id) is None


async def test_a_resumed_batch_does_not_pause_again_at_once(store: Store) -> None:
    batch_id, ids = await open_batch(store, 40)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await fail(store, worker, ids[:LINES], BAD)
    await canary.look_back()
    await canary.rooms()
    assert await paused(store, batch_id)
    assert await store.batch_lifecycle.resume(batch_id)
    await canary.rooms()
    await canary.look_back()
    await fail(store, worker, ids[LINES : LINES + 7], BAD)
    await canary.rooms()
    await canary.look_back()
    assert await paused(store, batch_id) is None
    await fail(store, worker, ids[LINES + 7 : LINES + 8], BAD)
    await canary.look_back()
    assert await paused(store, batch_id) == "the last 8 calls all failed: bad_request at lead/large"


async def test_later_only_an_unbroken_row_of_bad_requests_pauses_a_batch(store: Store) -> None:
    batch_id, ids = await open_batch(store, 40)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await run_all(store, worker, ids[:1])
    await canary.look_back()
    await fail(store, worker, ids[1:8], BAD)
    await run_all(store, worker, ids[8:9])
    await fail(store, worker, ids[9:16], BAD)
    await canary.look_back()
    await fail(store, worker, ids[16:26], FILTERED)
    await canary.look_back()
    assert await paused(store, batch_id) is None
    await fail(store, worker, ids[26:34], BAD)
    await canary.look_back()
    assert await paused(store, batch_id) == "the last 8 calls all failed: bad_request at lead/large"
    assert await store.batch_lifecycle.resume(batch_id)
    await canary.look_back()
    assert await paused(store, batch_id) is None


async def test_calls_that_failed_no_job_do_not_pause_a_batch(store: Store) -> None:
    """Their jobs wait for another step: a cooling primary, while a later step refuses its requests."""
    batch_id, ids = await open_batch(store, 40)
    worker, canary = await new_worker(store), Canary(store, SETTINGS)
    await run_all(store, worker, ids[:1])
    await canary.look_back()
    waits = [
        replace(put_back(job, until=2e9), attempts=[call(job, BAD)])
        for job in await store.claims.start(worker, ids[1:20])
    ]
    await store.claims.settle(worker, waits)
    await canary.look_back()
    assert await paused(store, batch_id) is None
    await fail(store, worker, ids[20:28], BAD)
    await canary.look_back()
    assert await paused(store, batch_id) == "the last 8 calls all failed: bad_request at lead/large"


async def test_who_lets_it_go_on_is_not_overruled(store: Store) -> None:
    """The canary decides by what it read a moment ago."""
    batch_id, ids = await open_batch(store, 20)
    await fail(store, await new_worker(store), ids[:LINES], BAD)
    await store.batch_lifecycle.pause(batch_id, "by hand")
    await store.batch_lifecycle.resume(batch_id)
    assert not await store.canary.hold_failing(batch_id, "too late", canary=True)
    assert await Canary(store, SETTINGS).rooms() == {}
    assert await paused(store, batch_id) is None


async def test_zero_turns_both_off(store: Store) -> None:
    batch_id, ids = await open_batch(store, 40)
    canary = Canary(store, BatchSettings(canary_lines=0, bad_requests_in_a_row=0))
    await fail(store, await new_worker(store), ids[:30], BAD)
    assert await canary.rooms() == {}
    await canary.look_back()
    assert await paused(store, batch_id) is None


async def test_a_model_that_is_merely_slow_is_not_waited_for(store: Store) -> None:
    time = Time()
    batch_id, ids = await open_batch(store, 20)
    worker, canary = await new_worker(store), Canary(store, SETTINGS, time)
    jobs = await store.claims.start(worker, ids[:LINES])
    assert await canary.rooms() == {batch_id: 0}
    time.now += PATIENCE_S + 1
    assert await canary.rooms() == {}
    await store.claims.settle(worker, [failed_at(jobs[0])])
    assert await canary.rooms() == {batch_id: 0}


async def test_a_batch_that_its_owner_pauses_or_cancels_is_not_examined(store: Store) -> None:
    held, _ = await open_batch(store, 20)
    cancelled, _ = await open_batch(store, 20)
    await store.batch_lifecycle.pause(held, "by hand")
    await store.batch_lifecycle.cancel(cancelled)
    assert await Canary(store, SETTINGS).rooms() == {}
    assert await paused(store, held) == "by hand"


@dataclass
class Office:
    """A planner with a canary, on a real Redis and a real ledger."""

    scene: Stage
    store: Store
    planner: Planner
    worker: str
    time: Time

    async def plan(self) -> list[str]:
        """One pass; the ids of all jobs that have a ticket now."""
        await self.planner.pass_once()
        return (await staged_ids(self.scene.redis))[Priority.BULK.queue]

    async def work_off(self, ids: list[str], outcome: Callable[[StartedJob], Settled]) -> None:
        """Workers take the tickets of these jobs, and all of them end like this."""
        for job_id in ids:
            await self.scene.redis.lrem(queue_key(Priority.BULK.queue), 0, job_id)
        await self.store.claims.settle(
            self.worker, [outcome(job) for job in await self.store.claims.start(self.worker, ids)]
        )


@asynccontextmanager
async def office(redis_url: str, folder: Path) -> AsyncIterator[Office]:
    async with stage(redis_url) as scene, sqlite_ledger(folder) as store:
        await without_slow_start(scene.redis, "alpha", "beta")
        time = Time()
        canary = Canary(store, SETTINGS, time)
        planner = planner_of(scene, store, monotonic=time, canary=canary)
        yield Office(scene, store, planner, await new_worker(store), time)


async def batch_of(store: Store, *chains: Chain, count: int = 50) -> tuple[str, list[str]]:
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, expires_at=await store.now() + HOUR_S))
    jobs = [job for each in chains for job in await new_jobs(store, count, each)]
    await store.intake.add_jobs(batch_id, jobs)
    await store.intake.open_batch(batch_id, len(jobs))
    return batch_id, [job.id for job in jobs]


async def test_the_first_jobs_go_alone_and_the_rest_after_a_success(redis_url: str, tmp_path: Path) -> None:
    async with office(redis_url, tmp_path) as here:
        _, ids = await batch_of(here.store, ALPHA)
        first = await here.plan()
        assert sorted(first) == sorted(ids[:LINES])
        assert await here.plan() == first
        await here.work_off(first, succeeded)
        assert sorted(await here.plan()) == sorted(ids[LINES:])


async def test_a_hopeless_batch_costs_no_more_calls_than_its_canary(redis_url: str, tmp_path: Path) -> None:
    async with office(redis_url, tmp_path) as here:
        batch_id, _ = await batch_of(here.store, ALPHA)
        called: set[str] = set()
        for _ in range(6):
            staged = await here.plan()
            called.update(staged)
            await here.work_off(staged[:2], failed_at)
            here.time.now += 2.0
        assert len(called) == LINES
        assert await paused(here.store, batch_id)


async def test_the_chains_of_a_watched_batch_take_turns(redis_url: str, tmp_path: Path) -> None:
    """A job that cannot start must not keep others from showing that they can."""
    async with office(redis_url, tmp_path) as here:
        _, ids = await batch_of(here.store, ALPHA, BETA)
        staged = set(await here.plan())
        assert len(staged) == LINES
        assert sorted([len(staged & set(ids[:50])), len(staged & set(ids[50:]))]) == [2, 3]


async def test_other_batches_are_planned_as_ever_meanwhile(redis_url: str, tmp_path: Path) -> None:
    async with office(redis_url, tmp_path) as here:
        _, ids = await batch_of(here.store, ALPHA)
        _, other = await batch_of(here.store, BETA)
        await here.store.claims.settle(
            here.worker, [succeeded(job) for job in await here.store.claims.start(here.worker, other[:1])]
        )
        staged = set(await here.plan())
        assert len(staged & set(ids)) == LINES and len(staged & set(other)) == len(other) - 1


async def test_a_stock_worker_that_helps_out_lets_no_more_of_a_watched_batch_go(redis_url: str, tmp_path: Path) -> None:
    async with office(redis_url, tmp_path) as here:
        _, ids = await batch_of(here.store, ALPHA)
        box = WorkerResources(
            *(Settings(batches=SETTINGS), here.scene.redis, here.scene.leases, here.store, here.scene.tools),
            *(None, None, budget_sync_of(here.scene, here.store), None),  # type: ignore[arg-type]
        )
        await stage_the_next(box)
        assert sorted((await staged_ids(here.scene.redis))[Priority.BULK.queue]) == sorted(ids[:LINES])
