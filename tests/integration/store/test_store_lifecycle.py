"""How batches and jobs end without a worker, and disabled credentials."""

import pytest
from ledger_help import failed, filled_batch, new_worker, open_batch, run_all, singles, state_of

from understudy.models.failure import FailureClass
from understudy.models.state import BatchState, JobState
from understudy.models.store import Store, StoreConflict


async def batch_state(store: Store, batch_id: str) -> BatchState:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view.state


async def test_a_batch_is_completed_when_its_last_job_has_ended(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    worker = await new_worker(store)
    await run_all(store, worker, ids[:1])
    assert await store.batch_lifecycle.close_finished() == []
    (last,) = await store.claims.start(worker, ids[1:])
    assert await store.batch_lifecycle.close_finished() == []
    await store.claims.settle(worker, [failed(last)])
    assert await store.batch_lifecycle.close_finished() == [batch_id]
    assert await store.batch_lifecycle.close_finished() == []
    assert await batch_state(store, batch_id) is BatchState.COMPLETED


async def test_a_cancelled_batch_ends_in_slices_and_after_its_running_job(store: Store) -> None:
    batch_id, ids = await open_batch(store, 5)
    worker = await new_worker(store)
    (running,) = await store.claims.start(worker, ids[:1])
    assert await store.batch_lifecycle.cancel(batch_id)
    assert not await store.batch_lifecycle.cancel(batch_id)

    assert [await store.batch_lifecycle.cancel_slice(limit=3) for _ in range(3)] == [3, 1, 0]
    assert await store.batch_lifecycle.close_finished() == []
    await store.claims.settle(worker, [failed(running)])
    assert await store.batch_lifecycle.close_finished() == [batch_id]

    view = await store.batches.view(batch_id)
    assert view is not None and view.state is BatchState.CANCELLED
    assert (view.counts[JobState.CANCELLED], view.counts[JobState.FAILED], view.counts[JobState.QUEUED]) == (4, 1, 0)


async def test_a_batch_past_its_deadline_expires_in_slices(store: Store) -> None:
    batch_id, _ = await open_batch(store, 5, expires_at=await store.now() - 1)
    assert [len(await store.batch_lifecycle.expire_slice(limit=3)) for _ in range(3)] == [3, 2, 0]
    assert await store.batch_lifecycle.close_finished() == [batch_id]
    assert await batch_state(store, batch_id) is BatchState.EXPIRED


async def test_a_single_job_past_its_deadline_expires_alone(store: Store) -> None:
    late = await singles(store, 1, expires_at=await store.now() - 1)
    in_time = await singles(store, 1)
    assert len(await store.batch_lifecycle.expire_slice()) == 1
    assert [await state_of(store, each) for each in late + in_time] == [JobState.EXPIRED, JobState.QUEUED]


async def test_a_queued_job_is_cancelled_at_once(store: Store) -> None:
    ids = await singles(store, 1)
    assert await store.jobs.cancel(ids[0]) is JobState.CANCELLED
    assert await store.jobs.cancel(ids[0]) is JobState.CANCELLED
    assert await store.jobs.cancel("job_unknown") is None


async def test_an_ended_batch_can_be_neither_held_nor_cancelled(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    assert await store.batch_lifecycle.pause(batch_id, "look")
    view = await store.batches.view(batch_id)
    assert view is not None and view.paused == "look"
    assert await store.batch_lifecycle.resume(batch_id)
    await run_all(store, await new_worker(store), ids)
    await store.batch_lifecycle.close_finished()
    assert not await store.batch_lifecycle.pause(batch_id, "too late")
    assert not await store.batch_lifecycle.cancel(batch_id)


async def test_a_batch_that_is_cancelled_while_it_is_filled_takes_no_more_rows(store: Store) -> None:
    batch_id, _ = await filled_batch(store, 2)
    assert await store.batch_lifecycle.cancel(batch_id)
    with pytest.raises(StoreConflict, match="cannot be opened"):
        await store.intake.open_batch(batch_id, 2)
    with pytest.raises(StoreConflict, match="takes no more rows"):
        await store.intake.add_jobs(batch_id, [])


async def test_a_credential_is_set_aside_once_and_enabled_again(store: Store) -> None:
    await store.credentials.set_aside("lead", "main", "", FailureClass.CREDENTIAL, "revoked", "f1")
    await store.credentials.set_aside("lead", "main", "", FailureClass.QUOTA, "no money", "f2", probe_at=5.0)
    await store.credentials.set_aside("lead", "spare", "large", FailureClass.MODEL_MISSING, "no such model")
    first, second = await store.credentials.listed()
    assert (first.failure, first.reason, first.fingerprint, first.probe_at) == (
        FailureClass.QUOTA,
        "no money",
        "f2",
        5.0,
    )
    assert (second.key, second.model, second.probe_at) == ("spare", "large", None)

    assert await store.credentials.enable("lead", "main") == ["main"]
    assert [each.key for each in await store.credentials.listed()] == ["spare"]
    assert await store.credentials.enable("lead") == ["spare"]
    assert await store.credentials.listed() == []
