"""Accepting batches: all or nothing, found again by identity, deleted in slices."""

import asyncio

import pytest
from ledger_help import filled_batch, new_jobs, new_worker, open_batch, outputs_of, run_all, singles, state_of

from understudy.models.errors import WrongUse
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.state import BatchState, JobState
from understudy.models.store import Store, StoreConflict, StoreError
from understudy.producer.ledger import NoLedger, UnknownId, batch_named, shown_batch


async def test_a_batch_is_accepted_in_one_step(store: Store) -> None:
    batch_id, _ = await filled_batch(store, 3, metadata={"team": "ü"}, source="in.jsonl")
    before = await store.batches.view(batch_id)
    await store.intake.open_batch(batch_id, 3)
    after = await store.batches.view(batch_id)
    assert before is not None and after is not None
    assert (before.state, after.state) == (BatchState.VALIDATING, BatchState.IN_PROGRESS)
    assert (after.total, after.counts[JobState.QUEUED], after.source) == (3, 3, "in.jsonl")
    with pytest.raises(StoreConflict):
        await store.intake.open_batch(batch_id, 3)
    with pytest.raises(StoreConflict):
        await store.intake.add_jobs(batch_id, await new_jobs(store, 1))


async def test_a_slice_with_a_job_that_exists_is_refused_whole(store: Store) -> None:
    batch_id, ids = await filled_batch(store, 1)
    jobs = await new_jobs(store, 3)
    jobs[2].id = ids[0]
    with pytest.raises(StoreConflict):
        await store.intake.add_jobs(batch_id, jobs)
    assert await store.jobs.view(jobs[0].id) is None


async def test_jobs_take_the_deadline_of_their_batch(store: Store) -> None:
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, expires_at=123.0))
    (job,) = await new_jobs(store, 1, expires_at=0.0)
    await store.intake.add_jobs(batch_id, [job])
    view = await store.jobs.view(job.id)
    assert view is not None and view.expires_at == 123.0


async def test_the_identity_of_a_batch_is_unique(store: Store) -> None:
    await filled_batch(store, 0, identity="abc")
    with pytest.raises(StoreConflict):
        await filled_batch(store, 0, identity="abc")


async def test_the_latest_batch_is_a_tenants_own_or_that_of_all(store: Store) -> None:
    assert await store.batches.latest() is None
    await open_batch(store, 1)
    last, _ = await open_batch(store, 1)
    acmes, _ = await filled_batch(store, 0, tenant="acme")
    assert await store.batches.latest("default") == last
    assert await store.batches.latest("acme") == await store.batches.latest() == acmes


async def test_who_looks_sees_all_tenants_and_who_changes_names_another_tenants_batch(store: Store) -> None:
    mine, _ = await open_batch(store, 1)
    assert await batch_named(store, "latest") == mine
    acmes, _ = await open_batch(store, 1, tenant="acme")
    assert await shown_batch(store, "latest") == acmes
    assert await shown_batch(store, "latest", "default") == mine
    assert await batch_named(store, acmes) == acmes
    with pytest.raises(WrongUse, match=f"{acmes}, belongs to tenant acme"):
        await batch_named(store, "latest")
    with pytest.raises(UnknownId):
        await shown_batch(store, acmes, "default")
    with pytest.raises(NoLedger, match="by tenant beta"):
        await shown_batch(store, "latest", "beta")


async def test_a_discarded_batch_leaves_nothing_behind(store: Store) -> None:
    kept, kept_ids = await open_batch(store, 2)
    batch_id, ids = await filled_batch(store, 5)
    await store.retention.discard_batch(batch_id)
    await store.retention.discard_batch(batch_id)
    assert await store.batches.view(batch_id) is None
    assert [await store.jobs.view(each) for each in ids] == [None] * 5
    assert await state_of(store, kept_ids[0]) is JobState.QUEUED
    assert {each.batch_id for each in await store.planning.lanes()} == {kept}


async def test_an_open_batch_is_not_deleted_but_an_ended_one_is_with_its_results(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    with pytest.raises(StoreConflict, match="cancel it before"):
        await store.retention.discard_batch(batch_id)
    await run_all(store, await new_worker(store), ids)
    await store.batch_lifecycle.close_finished()
    await store.retention.discard_batch(batch_id)
    assert await outputs_of(store, batch_id) == []
    assert await store.jobs.attempts(batch_id=batch_id) == []


async def test_an_unknown_chain_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="no chain chn_none"):
        await store.get_chain("chn_none")


async def test_hundreds_of_single_jobs_of_many_tenants_are_accepted(store: Store) -> None:
    for name in ("a", "b"):
        await singles(store, 200, tenant=name)
    assert [len(await store.planning.heads(lane, 1_000)) for lane in await store.planning.lanes()] == [200, 200]


async def test_pruning_deletes_what_ended_before_a_time_and_nothing_else(store: Store) -> None:
    old, old_ids = await open_batch(store, 2)
    alone, waiting = await singles(store, 2)
    worker = await new_worker(store)
    await run_all(store, worker, [*old_ids, alone])
    await store.batch_lifecycle.close_finished()
    going, going_ids = await open_batch(store, 2)
    await run_all(store, worker, going_ids[:1])

    assert await store.retention.prune(before=await store.now() - 60) == (0, 0)
    assert await store.retention.prune(before=await store.now() + 1) == (1, 1)

    assert [await store.batches.view(old), await store.jobs.view(alone)] == [None, None]
    assert await state_of(store, waiting) is JobState.QUEUED
    assert len(await outputs_of(store, going)) == 1


async def test_retries_and_runs_are_found_in_order(store: Store) -> None:
    first, _ = await filled_batch(store, 0, identity="aa-1")
    second, _ = await filled_batch(store, 0, retry_of=first)
    third, _ = await filled_batch(store, 0, retry_of=second, identity="bb-1")
    assert await store.batches.retries_of(first) == [second, third]
    assert await store.runs.batches_of("aa") == [first]
    assert await store.runs.batches_of("a") == []
    assert third not in await store.batches.retries_of(third)


async def test_an_sdks_equal_retries_at_the_same_time_make_one_batch(store: Store) -> None:
    deadline = max(await asyncio.gather(*(store.now() for _ in range(20)))) + 60  # and connections for all of them

    async def create() -> str:
        new = NewBatch(new_id("batch"), expires_at=deadline, input_file_id="file_1", request_hash="equal")
        return await store.intake.accept_batch(new, repeated=True)

    assert len({*await asyncio.gather(*(create() for _ in range(20)))}) == 1
    assert len(await store.batches.page()) == 1
