"""Workers that die, and jobs that kill them."""

from ledger_help import crashes_of, new_worker, open_batch, outputs_of, put_back, singles, state_of, succeeded

from understudy.models.failure import FailureClass
from understudy.models.jobs.suspects import ALONE_AT, DEAD_AT
from understudy.models.state import JobState
from understudy.models.store import Store


async def crash(store: Store, ids: list[str]) -> None:
    """A worker starts the jobs and dies."""
    worker = await new_worker(store)
    assert len(await store.claims.start(worker, ids)) == len(ids)
    await store.workers.beat(worker, -1)
    assert await store.workers.rescue() == [(worker, len(ids))]


async def test_the_jobs_of_a_dead_worker_are_due_at_once_with_their_progress(store: Store) -> None:
    ids = await singles(store, 2)
    dead, alive = await new_worker(store), await new_worker(store)
    first, second = await store.claims.start(dead, ids)
    await store.claims.settle(dead, [put_back(first, step=1)])
    await store.claims.start(dead, [first.id])
    await store.workers.beat(dead, -1)

    assert await store.workers.rescue() == [(dead, 2)]

    assert await store.workers.rescue() == []
    again = await store.claims.start(alive, ids)
    assert [(job.claim_no, job.progress, job.crashes) for job in again] == [(3, {"step": 1}, 1), (2, None, 1)]
    assert await store.claims.settle(dead, [succeeded(second)]) == set()
    assert not await store.workers.beat(dead, 60)


async def test_who_is_not_sure_takes_nothing_back(store: Store) -> None:
    ids = await singles(store, 1)
    dead = await new_worker(store)
    await store.claims.start(dead, ids)
    await store.workers.beat(dead, -1)
    assert await store.workers.rescue(lambda: False) == []
    assert await state_of(store, ids[0]) is JobState.RUNNING
    assert await store.workers.rescue(lambda: True) == [(dead, 1)]


async def test_a_living_worker_is_left_alone(store: Store) -> None:
    ids = await singles(store, 1)
    worker = await new_worker(store)
    await store.claims.start(worker, ids)
    assert await store.workers.rescue() == []
    assert await state_of(store, ids[0]) is JobState.RUNNING


async def test_a_crash_counts_for_every_job_that_was_aboard(store: Store) -> None:
    suspect, *innocent = await singles(store, 3)
    await crash(store, [suspect])
    await crash(store, [suspect])

    await crash(store, [suspect, *innocent])

    assert [await crashes_of(store, each) for each in (suspect, *innocent)] == [3, 1, 1]


async def test_a_job_that_crashed_its_workers_alone_is_failed_with_a_result_that_says_so(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    poison, innocent = ids
    for _ in range(DEAD_AT - 1):
        await crash(store, [poison])
    await crash(store, [poison, innocent])
    assert await outputs_of(store, batch_id) == []
    assert await state_of(store, poison) is JobState.QUEUED, "the other one may have caused it"

    await crash(store, [poison])

    (row,) = await outputs_of(store, batch_id)
    assert (row.job_id, row.state, row.error and row.error["code"]) == (poison, JobState.FAILED, "crashed")
    assert [each.failure async for each in store.reruns.unanswered_jobs(batch_id)] == [FailureClass.CRASHED]
    assert await state_of(store, innocent) is JobState.QUEUED
    view = await store.batches.view(batch_id)
    assert view is not None and view.counts[JobState.FAILED] == 1


async def test_while_a_job_must_run_alone_no_other_suspect_runs_in_the_whole_fleet(store: Store) -> None:
    one, other, suspect, innocent = await singles(store, 4)
    for _ in range(ALONE_AT):
        await crash(store, [one])
        await crash(store, [other])
    await crash(store, [suspect])
    here, there = await new_worker(store), await new_worker(store)
    [started] = await store.claims.start(here, [one])

    assert [job.id for job in await store.claims.start(there, [other, suspect, innocent])] == [innocent]

    await store.claims.settle(here, [succeeded(started)])
    [started] = await store.claims.start(there, [suspect])
    assert await store.claims.start(here, [other]) == []
    await store.claims.settle(there, [succeeded(started)])
    assert [job.id for job in await store.claims.start(here, [other])] == [other]


async def test_a_worker_that_was_seen_to_end_is_not_waited_for(store: Store) -> None:
    ids = await singles(store, 2)
    dead, alive = await new_worker(store), await new_worker(store)
    await store.claims.start(dead, ids)

    assert await store.workers.rescue_one(dead) == 2
    assert await store.workers.rescue_one(dead) == 0

    assert [job.crashes for job in await store.claims.start(alive, ids)] == [1, 1]
    await store.workers.remove(alive)
    assert await store.workers.rescue_one(alive) == 0
    assert [await crashes_of(store, each) for each in ids] == [1, 1]


async def test_a_job_that_was_cancelled_while_its_worker_died_ends(store: Store) -> None:
    ids = await singles(store, 1)
    worker = await new_worker(store)
    await store.claims.start(worker, ids)
    await store.jobs.cancel(ids[0])
    await store.workers.beat(worker, -1)
    await store.workers.rescue()
    assert await state_of(store, ids[0]) is JobState.CANCELLED


async def test_a_start_that_owns_the_data_folder_takes_everything_back(store: Store) -> None:
    ids = await singles(store, 4)
    one, two = await new_worker(store), await new_worker(store)
    await store.claims.start(one, ids[:2])
    await store.claims.start(two, ids[2:])

    assert sorted(await store.workers.rescue_all()) == sorted([(one, 2), (two, 2)])

    assert [await crashes_of(store, each) for each in ids] == [1, 1, 1, 1]
    assert await store.workers.live() == []


async def test_whether_any_job_ended_is_known_and_dead_lettered_ones_do_not_count(store: Store) -> None:
    poison, innocent = await singles(store, 2)
    for _ in range(DEAD_AT):
        await crash(store, [poison])
    assert await state_of(store, poison) is JobState.FAILED
    assert not await store.workers.has_ended_jobs(60.0)
    worker = await new_worker(store)
    [started] = await store.claims.start(worker, [innocent])
    await store.claims.settle(worker, [succeeded(started)])
    assert await store.workers.has_ended_jobs(60.0)
