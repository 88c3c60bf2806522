"""The batches of a `run` continue while its process says that it is alive."""

import asyncio

from ledger_help import new_worker, open_batch

from understudy.models.jobs.pause_reasons import RUN_STOPPED
from understudy.models.jobs.views import BatchView
from understudy.models.state import BatchState
from understudy.models.store import Store


async def view_of(store: Store, batch_id: str) -> BatchView:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view


async def starts(store: Store, ids: list[str]) -> bool:
    """Whether the planner sees the jobs and a worker that holds their tickets may start them: both or neither."""
    seen = bool(await store.planning.lanes())
    worker = await new_worker(store)
    started = await store.claims.start(worker, ids)
    await store.workers.remove(worker)
    assert bool(started) is seen
    return seen


async def test_jobs_of_a_run_start_only_while_its_process_lives(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2, runs_until=0.0)
    assert not await starts(store, ids)
    assert (await view_of(store, batch_id)).paused == RUN_STOPPED
    await store.runs.keep([batch_id], 60.0)
    assert await starts(store, ids)
    assert (await view_of(store, batch_id)).paused is None
    await store.runs.keep([batch_id], -1.0)  # as when it was killed, a lease later
    assert not await starts(store, ids)


async def test_one_process_at_a_time_is_at_work_on_a_run(store: Store) -> None:
    assert await store.runs.taken_for_s("aa") <= 0
    taken = await asyncio.gather(*(store.runs.take("aa", 60.0) for _ in range(5)))
    assert sorted(taken) == [False] * 4 + [True]
    assert 50 < await store.runs.taken_for_s("aa") <= 60
    assert await store.runs.taken_for_s("a") <= 0 and await store.runs.take("a", 60.0)
    await store.runs.keep_taken("aa", 120.0)
    assert await store.runs.taken_for_s("aa") > 100
    await store.runs.keep_taken("aa", 0.0)
    assert await store.runs.take("aa", 60.0)
    await store.runs.stop_all()
    assert await store.runs.take("aa", 60.0), "a start that found the data folder free knows that nobody is"


async def test_who_is_at_work_on_a_run_stays_so_when_its_lines_are_put_or_forgotten(store: Store) -> None:
    assert await store.runs.take("aa", 60.0) and await store.runs.version("aa") == 0
    await store.runs.put_version("aa", 1)
    assert await store.runs.version("aa") == 1 and not await store.runs.take("aa", 60.0)
    await store.runs.forget("aa")
    assert await store.runs.version("aa") == 0 and not await store.runs.take("aa", 60.0)


async def test_a_run_that_stops_stays_stopped_until_it_is_resumed(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2, runs_until=0.0)
    await store.runs.keep([batch_id], 60.0)
    await store.runs.stop([batch_id])
    assert not await starts(store, ids)
    await store.batch_lifecycle.resume(batch_id)
    await store.runs.stop([batch_id])
    await store.runs.stop_all()
    assert await starts(store, ids), "who resumes it lets it go on without its run"


async def test_a_start_that_finds_the_data_folder_free_stops_all_runs_and_nothing_else(store: Store) -> None:
    killed, of_killed = await open_batch(store, 1, runs_until=0.0)
    await store.runs.keep([killed], 60.0)
    submitted, of_submitted = await open_batch(store, 1)
    await store.runs.stop_all()
    started = await store.claims.start(await new_worker(store), [*of_killed, *of_submitted])
    assert [each.id for each in started] == of_submitted
    assert (await view_of(store, killed)).paused == RUN_STOPPED
    assert (await view_of(store, submitted)).paused is None


async def test_what_ended_says_nothing_of_its_run(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, runs_until=0.0)
    await store.batch_lifecycle.cancel(batch_id)
    while await store.batch_lifecycle.cancel_slice():
        continue
    await store.batch_lifecycle.close_finished()
    await store.runs.stop_all()
    view = await view_of(store, batch_id)
    assert (view.state, view.paused) == (BatchState.CANCELLED, None)
