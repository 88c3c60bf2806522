"""The claim loop with a real queue and a real ledger: every claimed job is settled, whatever else fails."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ledger_help import crashes_of, new_jobs, new_worker, sqlite_ledger, state_of, succeeded
from redis.exceptions import BusyLoadingError
from run_help import PROMPT, Stage, chain, planner_of, stage, without_slow_start

from understudy.models.jobs.execution import Settled
from understudy.models.jobs.submission import NewJob
from understudy.models.jobs.suspects import ALONE_AT, max_suspects
from understudy.models.queue import tickets
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import TERMINAL_STATES, JobState, Priority
from understudy.models.store import Store, StoreBusy, StoreDefect, StoreUnavailable
from understudy.worker.job.claim_loop import ClaimLoop, kept_free
from understudy.worker.job.settle import DOUBTED_TRIES, Settler
from understudy.worker.rq.bridge import Bridge

pytestmark = pytest.mark.timeout(40)

ALPHA = chain("alpha/m")


async def jobs_for(store: Store, count: int) -> list[NewJob]:
    body = json.dumps({"messages": [{"role": "user", "content": PROMPT}]})
    return [replace(job, body=body) for job in await new_jobs(store, count, ALPHA)]


@dataclass
class Floor:
    """A running claim loop and what it needs."""

    scene: Stage
    store: Store
    bridge: Bridge
    loop: ClaimLoop
    stopping: asyncio.Event
    hurry: asyncio.Event

    async def submit(self, count: int, priority: Priority = Priority.BULK, of: Chain = ALPHA) -> list[str]:
        jobs = [replace(each, priority=priority, chain=of) for each in await jobs_for(self.store, count)]
        await self.store.intake.accept_jobs("default", jobs)
        await self.stage(jobs)
        return [each.id for each in jobs]

    async def stage(self, jobs: Sequence[NewJob]) -> None:
        await tickets.stage(self.scene.redis, [(each.id, each.priority) for each in jobs])

    async def states(self, ids: Sequence[str]) -> list[JobState]:
        return [await state_of(self.store, each) for each in ids]

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(15):
            while not await holds():
                await asyncio.sleep(0.01)

    async def until_all(self, ids: Sequence[str], state: JobState) -> None:
        async def holds() -> bool:
            return set(await self.states(ids)) == {state}

        await self.until(holds)

    async def until_in_flight(self, count: int) -> None:
        async def holds() -> bool:
            return bool(self.scene.mock.stats()["in_flight"] == count)

        await self.until(holds)


@asynccontextmanager
async def floor(
    redis_url: str, folder: Path, *rules: dict[str, Any], concurrency: int = 10, **more: Any
) -> AsyncIterator[Floor]:
    async with stage(redis_url, *rules, **more) as scene, sqlite_ledger(folder) as store:
        worker_id = await new_worker(store)
        async with Bridge(scene.redis, worker_id, time.time) as bridge:
            loop = ClaimLoop(worker_id, bridge, store, scene.tools, concurrency)
            here = Floor(scene, store, bridge, loop, asyncio.Event(), asyncio.Event())
            running = asyncio.create_task(loop.run(here.stopping))
            try:
                yield here
            finally:
                here.stopping.set()
                await running
                await loop.drain(0.0, here.hurry)


class Outage:
    """A method of the store that is away for a number of calls."""

    def __init__(self, method: Callable[..., Awaitable[Any]], times: int, after_commit: bool = False) -> None:
        self.method, self.times, self.after_commit = method, times, after_commit

    async def __call__(self, *words: Any) -> Any:
        if self.times <= 0:
            return await self.method(*words)
        self.times -= 1
        if self.after_commit:
            await self.method(*words)
        raise StoreUnavailable("the database went away")


async def test_one_slot_is_enough_for_any_number_of_jobs(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, concurrency=1) as here:
        await here.until_all(await here.submit(60), JobState.SUCCEEDED)


async def test_bulk_jobs_leave_slots_to_urgent_ones_which_start_at_once(redis_url: str, tmp_path: Path) -> None:
    slow = {"provider": "alpha", "latency_s": 8.0}
    async with floor(redis_url, tmp_path, slow, concurrency=40, timeout_s=20) as here:
        await without_slow_start(here.scene.redis, "alpha", "beta")
        await here.submit(60)
        await here.until_in_flight(38)
        began = time.monotonic()
        await here.until_all(await here.submit(1, Priority.NORMAL, chain("beta/m")), JobState.SUCCEEDED)
        await here.until_all(await here.submit(5, Priority.INTERACTIVE, chain("beta/m")), JobState.SUCCEEDED)
        assert time.monotonic() - began < 4.0
        assert here.scene.mock.stats()["in_flight"] == 38


async def test_a_bulk_job_takes_the_next_slot_of_its_kind_that_is_free(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 0.2}, concurrency=5) as here:
        await here.until_all(await here.submit(40), JobState.SUCCEEDED)
        assert here.scene.mock.stats()["peak_in_flight"] == 4


@pytest.mark.parametrize(("slots", "kept"), [(1, 0), (4, 0), (5, 1), (39, 1), (40, 2), (1000, 50)])
def test_a_twentieth_of_the_slots_is_kept_from_bulk_jobs(slots: int, kept: int) -> None:
    assert kept_free(slots) == kept


async def test_no_more_calls_than_slots(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 0.2}, concurrency=4) as here:
        await here.until_all(await here.submit(30), JobState.SUCCEEDED)
        assert here.scene.mock.stats()["peak_in_flight"] == 4


async def test_a_result_is_committed_before_rq_is_told(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[JobState]] = []
    async with floor(redis_url, tmp_path) as here:
        finish = here.bridge.finish

        async def watched(ids: Sequence[str]) -> None:
            told.append(await here.states(ids))
            await finish(ids)

        monkeypatch.setattr(here.bridge, "finish", watched)
        await here.until_all(await here.submit(20), JobState.SUCCEEDED)
    assert {state for states in told for state in states} == {JobState.SUCCEEDED}


async def test_paid_answers_are_held_while_the_ledger_is_away(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path) as here:
        monkeypatch.setattr(here.store.claims, "settle", Outage(here.store.claims.settle, times=2))
        await here.until_all(await here.submit(5), JobState.SUCCEEDED)
        assert here.scene.calls("alpha") == 5


async def test_a_claim_whose_commit_was_not_confirmed_runs_all_the_same(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path) as here:
        monkeypatch.setattr(here.store.claims, "start", Outage(here.store.claims.start, times=1, after_commit=True))
        jobs = await jobs_for(here.store, 3)
        await here.store.intake.accept_jobs("default", jobs)
        await here.stage(jobs)
        await here.until_all([each.id for each in jobs], JobState.RUNNING)
        await here.until_all([each.id for each in jobs], JobState.QUEUED)
        await here.stage(jobs)
        await here.until_all([each.id for each in jobs], JobState.SUCCEEDED)
        assert here.scene.calls("alpha") == 3


async def test_an_outage_between_claim_and_chain_puts_the_job_back(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path) as here:
        jobs = await jobs_for(here.store, 1)
        await here.store.intake.accept_jobs("default", jobs)
        monkeypatch.setattr(here.store, "get_chain", Outage(here.store.get_chain, times=1))
        await here.stage(jobs)

        async def was_put_back() -> bool:
            view = await here.store.jobs.view(jobs[0].id)
            waits = view and view.put_back_for
            return waits is not None and waits.sentence == "the ledger or the queue was unavailable"

        await here.until(was_put_back)
        await here.stage(jobs)
        await here.until_all([jobs[0].id], JobState.SUCCEEDED)


async def test_an_outcome_that_cannot_be_written_takes_no_neighbour_along(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with floor(redis_url, tmp_path) as here:
        jobs = await jobs_for(here.store, 8)
        settle = here.store.claims.settle

        async def picky(worker_id: str, outcomes: Sequence[Settled]) -> set[str]:
            if any(each.job_id == jobs[3].id and each.attempts for each in outcomes):
                raise TypeError("CANARY: Integer exceeds 64-bit range")
            return await settle(worker_id, outcomes)

        monkeypatch.setattr(here.store.claims, "settle", picky)
        await here.store.intake.accept_jobs("default", jobs)
        await here.stage(jobs)
        others = [each.id for each in jobs if each is not jobs[3]]
        await here.until_all(others, JobState.SUCCEEDED)
        await here.until_all([jobs[3].id], JobState.FAILED)
    assert "CANARY" not in caplog.text


async def test_nothing_new_is_claimed_while_outcomes_are_held(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path, concurrency=4) as here:
        outage = Outage(here.store.claims.settle, times=10**6)
        monkeypatch.setattr(here.store.claims, "settle", outage)
        first = await here.submit(2)
        await here.until_in_flight(0)

        async def both_are_held() -> bool:
            return len(here.loop.settler.uncommitted()) == 2 and here.loop.settler.holds

        await here.until(both_are_held)
        more = await here.submit(2)
        await asyncio.sleep(0.3)  # nothing happens, which no condition can detect
        assert await here.states(more) == [JobState.QUEUED] * 2
        assert here.scene.calls("alpha") == 2
        outage.times = 0
        await here.until_all(first + more, JobState.SUCCEEDED)
        assert here.scene.calls("alpha") == 4
        assert here.loop.settler.uncommitted() == []


async def test_a_worker_whose_lease_may_have_ended_leaves_the_tickets_to_others(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger would start no job for it, and the tickets would be lost."""
    async with floor(redis_url, tmp_path) as here:
        monkeypatch.setattr(here.loop, "_lease_runs", lambda: False)
        await here.submit(1)  # ends the current wait for tickets
        await asyncio.sleep(0.3)  # nothing happens, which no condition can detect
        ids = await here.submit(3)
        await asyncio.sleep(0.3)
        assert set(ids) <= set((await tickets.staged_ids(here.scene.redis))[Priority.BULK.queue])
        monkeypatch.setattr(here.loop, "_lease_runs", lambda: True)
        await here.until_all(ids, JobState.SUCCEEDED)


async def test_a_store_that_is_away_in_mid_run_puts_the_job_back_with_its_calls(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the outage is, it does not count against the job."""
    refused = {"provider": "alpha", "fail": "content_filter"}
    outages = [StoreBusy("read-only"), StoreUnavailable("gone"), StoreDefect("?"), TimeoutError(), BusyLoadingError()]
    async with floor(redis_url, tmp_path, refused) as here:
        ways = here.scene.tools.fleet.ways

        async def away_at_beta(step: Step) -> Any:
            if step.provider == "beta" and outages:
                raise outages.pop()
            return await ways(step)

        monkeypatch.setattr(here.scene.tools.fleet, "ways", away_at_beta)
        onward = chain("alpha/m", "beta/m", fallback_on=["content_filter"])
        (job,) = [replace(each, chain=onward) for each in await jobs_for(here.store, 1)]
        await here.store.intake.accept_jobs("default", [job])

        async def has_ended() -> bool:
            if await state_of(here.store, job.id) is JobState.QUEUED:
                await here.stage([job])
            return await state_of(here.store, job.id) in TERMINAL_STATES

        await here.until(has_ended)
        assert await state_of(here.store, job.id) is JobState.SUCCEEDED
        assert not outages
        assert here.scene.calls("alpha") == 1, "where it stood in its chain is kept"
        calls = await here.store.jobs.attempts(job_id=job.id)
        assert [(call["no"], call["provider"]) for call in calls] == [(1, "alpha"), (2, "beta")]


async def test_an_outcome_that_the_ledger_does_not_understand_is_held_for_long_and_then_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.worker.job.settle.OUTAGE_PAUSE_S", 0.001)
    async with sqlite_ledger(tmp_path) as store:
        worker_id = await new_worker(store)
        jobs = await jobs_for(store, 3)
        await store.intake.accept_jobs("default", jobs)
        outcomes = [succeeded(job) for job in await store.claims.start(worker_id, [each.id for each in jobs])]
        settle, tries = store.claims.settle, Counter[str]()

        async def puzzled(holder: str, given: Sequence[Settled]) -> set[str]:
            tries.update(each.job_id for each in given)
            broken = jobs[0].id if tries[jobs[0].id] < 5 else ""
            if any(each.attempts and each.job_id in (broken, jobs[1].id) for each in given):
                raise StoreDefect("no such column")
            return await settle(holder, given)

        monkeypatch.setattr(store.claims, "settle", puzzled)
        await asyncio.gather(*map(Settler(worker_id, store).add, outcomes))
        states = [await state_of(store, each.id) for each in jobs]
        assert states == [JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED]
        assert tries[jobs[1].id] >= DOUBTED_TRIES


async def test_outcomes_that_are_committed_together_with_a_bad_one_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sqlite_ledger(tmp_path) as store:
        worker_id = await new_worker(store)
        jobs = await jobs_for(store, 5)
        await store.intake.accept_jobs("default", jobs)
        outcomes = [succeeded(job) for job in await store.claims.start(worker_id, [each.id for each in jobs])]
        assert outcomes[2].result is not None
        outcomes[2].result.body = object()  # type: ignore[assignment]  # what no driver can bind
        settler = Settler(worker_id, store)
        await asyncio.gather(*map(settler.add, outcomes))
        states = [await state_of(store, each.id) for each in jobs]
    assert states == [JobState.FAILED if number == 2 else JobState.SUCCEEDED for number in range(5)]


async def test_a_job_that_cannot_even_be_read_fails_and_holds_no_slot(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with floor(redis_url, tmp_path, concurrency=1) as here:
        broken, fine = await jobs_for(here.store, 2)
        await here.store.intake.accept_jobs("default", [replace(broken, body='{"CANARY"'), fine])
        await here.stage([broken, fine])
        await here.until_all([broken.id], JobState.FAILED)
        await here.until_all([fine.id], JobState.SUCCEEDED)
    assert "CANARY" not in caplog.text


async def test_an_owners_cancel_stops_the_call(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 30}, timeout_s=60) as here:
        ids = await here.submit(3)
        await here.until_in_flight(3)
        await here.store.jobs.cancel(ids[1])
        for job_id in await here.store.jobs.cancelled_running():
            here.loop.cancel(job_id)
        await here.until_all([ids[1]], JobState.CANCELLED)
        await here.until_in_flight(2)
        assert here.loop.calls_in_flight() == [("alpha:main", "m")] * 2


async def test_draining_lets_calls_finish_within_the_grace(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 0.5}, timeout_s=9) as here:
        await without_slow_start(here.scene.redis, "alpha")
        ids = await here.submit(6)
        await here.until_in_flight(6)
        here.stopping.set()
        await here.loop.drain(10.0, here.hurry)
        assert set(await here.states(ids)) == {JobState.SUCCEEDED}


async def test_draining_gives_the_rest_back_unharmed_when_the_grace_ends(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 60}, timeout_s=90) as here:
        ids = await here.submit(6)
        await here.until_in_flight(6)
        here.stopping.set()
        began = time.monotonic()
        await here.loop.drain(3.0, here.hurry)
        assert time.monotonic() - began < 3.0
        assert set(await here.states(ids)) == {JobState.QUEUED}
        assert here.loop.runs == {}


async def test_in_a_hurry_nothing_is_waited_for(redis_url: str, tmp_path: Path) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 60}, timeout_s=90) as here:
        ids = await here.submit(2)
        await here.until_in_flight(2)
        here.stopping.set()
        here.hurry.set()
        began = time.monotonic()
        await here.loop.drain(30.0, here.hurry)
        assert time.monotonic() - began < 2.0
        assert set(await here.states(ids)) == {JobState.QUEUED}


async def test_a_ledger_that_stays_away_does_not_keep_a_worker_from_ending(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with floor(redis_url, tmp_path) as here:
        monkeypatch.setattr(here.store.claims, "settle", Outage(here.store.claims.settle, times=10**6))
        await here.submit(2)
        await here.until_in_flight(0)

        async def both_answered() -> bool:
            return here.scene.calls("alpha") == 2

        await here.until(both_answered)
        here.stopping.set()
        began = time.monotonic()
        left = await here.loop.drain(3.0, here.hurry)
        assert time.monotonic() - began < 3.5
        assert [each.state for each in left] == [JobState.SUCCEEDED] * 2
    assert "2 jobs whose outcome was not committed" in caplog.text


async def test_a_claim_that_hangs_does_not_hold_up_the_end(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path) as here:

        async def hang(_: int, at_most: object) -> list[str]:
            await asyncio.Event().wait()
            return []

        monkeypatch.setattr(here.bridge, "claim", hang)
        await here.submit(1)
        running = asyncio.create_task(here.loop.run(here.stopping))
        await asyncio.sleep(0.1)
        here.stopping.set()
        async with asyncio.timeout(2.0):
            await running


async def with_crashes(store: Store, ids: Sequence[str], crashes: int) -> None:
    for _ in range(crashes):
        for job_id in ids:
            worker_id = await new_worker(store)
            assert await store.claims.start(worker_id, [job_id])
            await store.workers.rescue_one(worker_id)


@asynccontextmanager
async def watched(here: Floor, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[set[str]]]:
    """The jobs that ran in the worker, at each call."""
    seen: list[set[str]] = []
    client = here.scene.tools.client
    send = client.send

    async def noted(*words: Any) -> Any:
        seen.append(set(here.loop.runs))
        return await send(*words)

    monkeypatch.setattr(client, "send", noted)
    yield seen


async def until_all_succeeded(here: Floor, jobs: Sequence[NewJob]) -> None:
    """Does the planner's part: jobs that were put back get a new ticket."""

    async def holds() -> bool:
        states = await here.states([each.id for each in jobs])
        await here.stage([job for job, state in zip(jobs, states, strict=True) if state is JobState.QUEUED])
        return set(states) == {JobState.SUCCEEDED}

    await here.until(holds)


async def test_suspects_run_few_at_a_time_next_to_others(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 0.1}, concurrency=16) as here:
        jobs = await jobs_for(here.store, 12)
        suspects = {each.id for each in jobs[:6]}
        await here.store.intake.accept_jobs("default", jobs)
        await with_crashes(here.store, sorted(suspects), 2)
        async with watched(here, monkeypatch) as seen:
            await here.stage(jobs)
            await until_all_succeeded(here, jobs)
    assert max(len(running & suspects) for running in seen) == max_suspects(2, 16) == 2
    assert max(len(running - suspects) for running in seen) > 2


async def test_a_job_with_many_crashes_waits_until_the_others_have_ended_and_runs_alone(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 0.3}) as here:
        jobs = await jobs_for(here.store, 6)
        one, other, *innocent = (each.id for each in jobs)
        await here.store.intake.accept_jobs("default", jobs)
        await with_crashes(here.store, [one, other], ALONE_AT)
        async with watched(here, monkeypatch) as seen:
            await here.stage(jobs[2:])
            await here.until_all(innocent, JobState.RUNNING)
            await until_all_succeeded(here, jobs)
    assert [running for running in seen if running & {one, other}] in ([{one}, {other}], [{other}, {one}])


async def test_a_job_that_waits_to_run_alone_is_given_back_by_a_worker_that_stops(
    redis_url: str, tmp_path: Path
) -> None:
    async with floor(redis_url, tmp_path, {"latency_s": 30}, timeout_s=60) as here:
        slow, deadly = await jobs_for(here.store, 2)
        await here.store.intake.accept_jobs("default", [slow, deadly])
        await with_crashes(here.store, [deadly.id], ALONE_AT)
        await here.stage([slow])
        await here.until_in_flight(1)
        await here.stage([deadly])
        await here.until_all([slow.id, deadly.id], JobState.RUNNING)
        here.stopping.set()
        await here.loop.drain(0.0, here.hurry)
        assert await here.states([slow.id, deadly.id]) == [JobState.QUEUED] * 2
        assert await crashes_of(here.store, deadly.id) == ALONE_AT


async def test_a_job_that_this_worker_runs_twice_after_a_lost_lease_is_settled_once(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with floor(redis_url, tmp_path, {"latency_s": 0.4}, timeout_s=9) as here:
        jobs = await jobs_for(here.store, 1)
        await here.store.intake.accept_jobs("default", jobs)
        await here.stage(jobs)
        await here.until_in_flight(1)
        await here.store.workers.give_back(here.loop.worker_id, [jobs[0].id])
        await here.stage(jobs)
        await here.until_in_flight(2)
        await here.until_all([jobs[0].id], JobState.SUCCEEDED)
        await here.until_in_flight(0)
        assert here.loop.runs == {}
    assert caplog.text == ""


async def test_a_burst_ends_when_nothing_is_left(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url) as scene, sqlite_ledger(tmp_path) as store:
        worker_id = await new_worker(store)
        async with Bridge(scene.redis, worker_id, time.time) as bridge:
            loop = ClaimLoop(worker_id, bridge, store, scene.tools, 10)
            jobs = await jobs_for(store, 25)
            await store.intake.accept_jobs("default", jobs)
            planner = planner_of(scene, store)
            async with asyncio.timeout(10):
                await loop.run(asyncio.Event(), refill=planner.pass_once)
            await loop.drain(5.0, asyncio.Event())
        assert {await state_of(store, each.id) for each in jobs} == {JobState.SUCCEEDED}
