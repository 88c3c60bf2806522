"""The batches of a `run` go on while its process says that it lives."""

from ledger_help import new_worker, open_batch

from models.pausing import RUN_STOPPED
from models.records import BatchView
from models.state import BatchState
from models.store import Store


async def view_of(store: Store, batch_id: str) -> BatchView:
    view = await store.batch_view(batch_id)
    assert view is not None
    return view


async def starts(store: Store, ids: list[str]) -> bool:
    """Whether the planner sees the jobs, and a worker that holds their tickets may start them: both, or neither."""
    seen = bool(await store.lanes())
    worker = await new_worker(store)
    started = await store.start(worker, ids)
    await store.remove_worker(worker)
    assert bool(started) is seen
    return seen


async def test_jobs_of_a_run_start_only_while_its_process_lives(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2, runs_until=0.0)
    assert not await starts(store, ids)
    assert (await view_of(store, batch_id)).paused == RUN_STOPPED
    await store.keep_run([batch_id], 60.0)
    assert await starts(store, ids)
    assert (await view_of(store, batch_id)).paused is None
    await store.keep_run([batch_id], -1.0)  # as when it was killed, a lease later
    assert not await starts(store, ids)


async def test_a_run_tells_for_how_long_its_process_may_be_at_work(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, runs_until=0.0, identity="aa-1")
    assert await store.lease_left_s("aa") < 0
    await store.keep_run([batch_id], 60.0)
    assert 50 < await store.lease_left_s("aa") <= 60
    assert await store.lease_left_s("a") < 0
    await store.stop_run([batch_id])
    assert await store.lease_left_s("aa") < 0


async def test_a_run_that_stops_stays_stopped_until_somebody_resumes_it(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2, runs_until=0.0)
    await store.keep_run([batch_id], 60.0)
    await store.stop_run([batch_id])
    assert not await starts(store, ids)
    await store.resume_batch(batch_id)
    await store.stop_run([batch_id])
    await store.stop_runs()
    assert await starts(store, ids), "who resumes it lets it go on without its run"


async def test_a_start_that_finds_the_data_folder_free_stops_all_runs_and_nothing_else(store: Store) -> None:
    killed, of_killed = await open_batch(store, 1, runs_until=0.0)
    await store.keep_run([killed], 60.0)
    submitted, of_submitted = await open_batch(store, 1)
    await store.stop_runs()
    started = await store.start(await new_worker(store), [*of_killed, *of_submitted])
    assert [each.id for each in started] == of_submitted
    assert (await view_of(store, killed)).paused == RUN_STOPPED
    assert (await view_of(store, submitted)).paused is None


async def test_what_ended_says_nothing_of_its_run(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, runs_until=0.0)
    await store.cancel_batch(batch_id)
    while await store.cancel_slice():
        continue
    await store.close_batches()
    await store.stop_runs()
    view = await view_of(store, batch_id)
    assert (view.state, view.paused) == (BatchState.CANCELLED, None)
