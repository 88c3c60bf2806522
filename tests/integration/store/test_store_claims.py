"""Starting and settling: who may write what about a job, and when."""

import asyncio

from ledger_help import (
    call,
    failed,
    filled_batch,
    new_worker,
    open_batch,
    outputs_of,
    put_back,
    singles,
    state_of,
    succeeded,
)

from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import Settled
from understudy.models.state import JobState
from understudy.models.store import Store


async def test_a_started_job_brings_everything_needed_to_run_it(store: Store) -> None:
    ids = await singles(store, 1)
    worker = await new_worker(store)

    (job,) = await store.claims.start(worker, ids)

    assert (job.id, job.claim_no, job.body, job.tokens) == (ids[0], 1, '{"messages":[]}', 7)
    assert (await store.get_chain(job.chain_id)).steps[0].provider == "lead"
    assert await state_of(store, ids[0]) is JobState.RUNNING


async def test_eight_tasks_that_start_the_same_jobs_get_each_job_once(store: Store) -> None:
    _, ids = await open_batch(store, 200)
    workers = [await new_worker(store) for _ in range(8)]

    claimed = await asyncio.gather(*(store.claims.start(worker, ids) for worker in workers))

    started = [job.id for jobs in claimed for job in jobs]
    assert len(started) == len(set(started))
    rest = await store.claims.start(workers[0], ids)
    assert sorted(started + [job.id for job in rest]) == sorted(ids)


async def test_a_job_starts_neither_before_its_time_nor_after_its_deadline(store: Store) -> None:
    now = await store.now()
    early = await singles(store, 1, not_before=now + 1000)
    late = await singles(store, 1, expires_at=now - 1)
    assert await store.claims.start(await new_worker(store), early + late) == []


async def test_rows_of_a_batch_start_only_while_it_is_in_progress_and_not_held(store: Store) -> None:
    worker = await new_worker(store)
    _, validating = await filled_batch(store, 1)
    paused, held = await open_batch(store, 1)
    cancelling, cancelled = await open_batch(store, 1)
    _, expiring = await open_batch(store, 1, expires_at=await store.now() - 1)
    await store.batch_lifecycle.pause(paused, "looks wrong")
    await store.batch_lifecycle.cancel(cancelling)
    await store.batch_lifecycle.expire_slice(limit=0)

    assert await store.claims.start(worker, validating + held + cancelled + expiring) == []
    await store.batch_lifecycle.resume(paused)
    assert [job.id for job in await store.claims.start(worker, validating + held)] == held


async def test_a_worker_without_a_lease_starts_nothing(store: Store) -> None:
    ids = await singles(store, 1)
    ended = await new_worker(store, lease_s=-1)
    assert await store.claims.start(ended, ids) == []
    assert await store.claims.start("never registered", ids) == []
    assert await state_of(store, ids[0]) is JobState.QUEUED


async def test_a_result_is_written_with_its_attempts(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    worker = await new_worker(store)
    first, second = await store.claims.start(worker, ids)

    assert await store.claims.settle(worker, [succeeded(first), failed(second)]) == set(ids)

    good, bad = sorted(await outputs_of(store, batch_id), key=lambda row: ids.index(row.job_id))
    assert (good.state, good.body, good.provider) == (JobState.SUCCEEDED, '{"answer":"yes"}', "lead")
    assert (bad.state, bad.status_code, bad.error) == (JobState.FAILED, None, {"code": "bad_request", "message": "no"})
    assert [each["failure"] for each in await store.jobs.attempts(batch_id=batch_id)] == [None, "bad_request"]


async def test_a_stale_claim_writes_nothing_but_its_attempts_and_spoils_no_neighbour(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    slow = await new_worker(store)
    lost, kept = await store.claims.start(slow, ids)
    await store.claims.settle(slow, [put_back(lost)])
    (again,) = await store.claims.start(slow, [lost.id])
    assert again.claim_no == 2

    assert await store.claims.settle(slow, [succeeded(lost, "late"), succeeded(kept)]) == {kept.id}

    assert await state_of(store, lost.id) is JobState.RUNNING
    assert {row.job_id for row in await outputs_of(store, batch_id)} == {kept.id}
    assert {each["job_id"] for each in await store.jobs.attempts(batch_id=batch_id)} == {lost.id, kept.id}
    assert await store.claims.settle(slow, [succeeded(again, "in time")]) == {lost.id}
    assert {row.body for row in await outputs_of(store, batch_id)} == {'{"answer":"in time"}', '{"answer":"yes"}'}


async def test_another_worker_cannot_settle_a_claim(store: Store) -> None:
    ids = await singles(store, 1)
    (job,) = await store.claims.start(await new_worker(store), ids)
    assert await store.claims.settle(await new_worker(store), [succeeded(job)]) == set()
    assert await state_of(store, job.id) is JobState.RUNNING


async def test_a_terminal_job_never_changes_and_has_one_result(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [succeeded(job)])

    assert await store.claims.settle(worker, [failed(job)]) == set()
    assert await store.claims.settle(worker, [put_back(job)]) == set()
    assert await store.claims.start(worker, ids) == []
    assert await store.jobs.cancel(job.id) is JobState.SUCCEEDED

    (row,) = await outputs_of(store, batch_id)
    assert (row.state, row.body) == (JobState.SUCCEEDED, '{"answer":"yes"}')


async def test_settling_again_after_a_lost_answer_counts_nothing_twice(store: Store) -> None:
    batch_id, ids = await open_batch(store, 3)
    worker = await new_worker(store)
    outcomes = [succeeded(job) for job in await store.claims.start(worker, ids)]
    assert await store.claims.settle(worker, outcomes) == set(ids)
    before = await store.batches.view(batch_id)

    assert await store.claims.settle(worker, outcomes) == set()

    after = await store.batches.view(batch_id)
    assert before is not None and after is not None
    assert (after.counts, after.cost_usd) == (before.counts, before.cost_usd)
    assert after.by_deployment == before.by_deployment
    assert len(await store.jobs.attempts(batch_id=batch_id)) == 3


async def test_a_job_that_is_put_back_keeps_its_progress_and_its_attempts(store: Store) -> None:
    ids = await singles(store, 1)
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, ids)
    back = put_back(job, step=1)
    back.attempts = [call(job, FailureClass.SERVER)]
    await store.claims.settle(worker, [back])

    (again,) = await store.claims.start(worker, ids)

    assert (again.claim_no, again.progress, again.attempts) == (2, {"step": 1}, 1)


async def test_a_job_cancelled_while_it_runs_ends_when_it_is_put_back(store: Store) -> None:
    ids = await singles(store, 1)
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, ids)
    assert await store.jobs.cancel(job.id) is JobState.RUNNING
    assert await store.jobs.cancelled_running() == ids

    assert await store.claims.settle(worker, [put_back(job)]) == set(ids)

    assert await state_of(store, job.id) is JobState.CANCELLED
    assert await store.jobs.cancelled_running() == []


async def test_a_running_job_of_a_cancelled_batch_is_named_and_ends_as_cancelled(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    worker = await new_worker(store)
    (job,) = await store.claims.start(worker, ids)
    await store.batch_lifecycle.cancel(batch_id)
    assert await store.jobs.cancelled_running() == ids
    stopped = Settled(job.id, job.batch_id, job.claim_no, JobState.CANCELLED)
    assert await store.claims.settle(worker, [stopped]) == set(ids)
    assert await state_of(store, job.id) is JobState.CANCELLED


async def test_hostile_words_and_numbers_of_a_provider_are_stored_without_harm_to_neighbours(store: Store) -> None:
    ids = await singles(store, 2)
    worker = await new_worker(store)
    odd, plain = await store.claims.start(worker, ids)
    strange = succeeded(odd, input_tokens=10**15)
    strange.attempts[0].message = "nul \0 and half a pair \ud800"
    strange.attempts[0].output_tokens = 10**15
    assert await store.claims.settle(worker, [strange, succeeded(plain)]) == set(ids)


async def test_a_worker_that_leaves_gives_its_jobs_back_without_a_crash(store: Store) -> None:
    ids = await singles(store, 2)
    worker = await new_worker(store)
    await store.claims.start(worker, ids)

    await store.workers.remove(worker)

    assert [each.id for each in await store.workers.live()] == []
    assert not await store.workers.beat(worker, 60)
    again = await store.claims.start(await new_worker(store), ids)
    assert [job.crashes for job in again] == [0, 0]


async def test_a_beat_prolongs_a_lease(store: Store) -> None:
    worker = await new_worker(store, lease_s=-1)
    assert await store.workers.live() == []
    assert await store.workers.beat(worker, 60)
    (alive,) = await store.workers.live()
    assert (alive.id, alive.host) == (worker, "here")
