"""Outcomes that a stopped worker could not commit are saved to disk, and the next start in its folder writes them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_help import failed, new_worker, open_batch, put_back, run_all, singles, state_of, succeeded
from sqlalchemy import update

from understudy.models import unsaved_outcomes
from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import Settled, StartedJob
from understudy.models.state import JobState
from understudy.models.store import Store, open_store
from understudy.models.store.sql import worker
from understudy.producer.processes.stack import open_stack


async def started(store: Store, count: int) -> tuple[str, list[StartedJob]]:
    worker_id = await new_worker(store)
    _, ids = await open_batch(store, count)
    return worker_id, await store.claims.start(worker_id, ids)


async def states(store: Store, jobs: list[StartedJob]) -> list[JobState]:
    return [await state_of(store, job.id) for job in jobs]


def kept_files(data: Path) -> list[Path]:
    return list((data / unsaved_outcomes.FOLDER).iterdir())


async def test_every_outcome_is_written_as_it_was_kept(store: Store, tmp_path: Path) -> None:
    worker_id, jobs = await started(store, 3)
    attempts = [replace(call, cls=FailureClass.TIMEOUT, no=1) for call in succeeded(jobs[2]).attempts]
    waits = replace(put_back(jobs[2], until=17.5, reason="too fast", step=1), attempts=attempts)
    unsaved_outcomes.keep(tmp_path, store.place, worker_id, [succeeded(jobs[0], "paid"), failed(jobs[1]), waits])
    assert [file.stat().st_mode & 0o077 for file in kept_files(tmp_path)] == [0], "others could read the answers"

    assert await unsaved_outcomes.replay(tmp_path, store) == 3

    assert await states(store, jobs) == [JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED]
    assert await store.jobs.answer(jobs[0].id) == '{"answer":"paid"}'
    assert [each.failure async for each in store.reruns.unanswered_jobs(jobs[1].batch_id)] == [FailureClass.BAD_REQUEST]
    (again,) = await store.claims.start(worker_id, [jobs[2].id])
    assert again.progress == {"step": 1}
    calls = await store.jobs.attempts(batch_id=jobs[0].batch_id)
    assert sorted(call["failure"] or "" for call in calls) == ["", "bad_request", "timeout"]
    assert kept_files(tmp_path) == []


async def test_what_the_ledger_has_already_is_not_changed(store: Store, tmp_path: Path) -> None:
    worker_id, jobs = await started(store, 2)
    outcomes = [succeeded(job) for job in jobs]
    await store.claims.settle(worker_id, outcomes)
    unsaved_outcomes.keep(tmp_path, store.place, worker_id, outcomes)
    assert await unsaved_outcomes.replay(tmp_path, store) == 0
    assert len(await store.jobs.attempts(batch_id=jobs[0].batch_id)) == 2


async def test_a_job_that_was_taken_back_meanwhile_has_its_call_counted_and_runs_again(
    store: Store, tmp_path: Path
) -> None:
    worker_id, jobs = await started(store, 1)
    async with store._db.write() as connection:
        await connection.execute(update(worker).values(lease_until=0.0))
    await store.workers.rescue()
    unsaved_outcomes.keep(tmp_path, store.place, worker_id, [succeeded(jobs[0])])
    assert await unsaved_outcomes.replay(tmp_path, store) == 0
    assert await states(store, jobs) == [JobState.QUEUED]
    assert len(await store.jobs.attempts(batch_id=jobs[0].batch_id)) == 1


async def test_of_several_that_start_in_one_folder_at_once_the_fastest_disturbs_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_id, jobs = await started(store, 3)
    for job in jobs:
        unsaved_outcomes.keep(tmp_path, store.place, worker_id, [succeeded(job)])
    settle, entered, overtaken = store.claims.settle, asyncio.Event(), asyncio.Event()

    async def settle_slowly(worker_id: str, outcomes: Sequence[Settled]) -> set[str]:
        if not entered.is_set():
            entered.set()
            await overtaken.wait()
        return await settle(worker_id, outcomes)

    monkeypatch.setattr(store.claims, "settle", settle_slowly)
    slow = asyncio.create_task(unsaved_outcomes.replay(tmp_path, store))
    await entered.wait()
    assert await unsaved_outcomes.replay(tmp_path, store) == 3
    overtaken.set()
    assert await slow == 0 and kept_files(tmp_path) == []
    assert len(await store.jobs.attempts(batch_id=jobs[0].batch_id)) == 3


async def test_a_start_writes_what_was_kept_before_it_takes_anybodys_jobs_back(tmp_path: Path) -> None:
    async with open_store(None, tmp_path) as store:
        worker_id, jobs = await started(store, 2)
        unsaved_outcomes.keep(tmp_path, store.place, worker_id, [succeeded(jobs[0])])
    async with open_stack(Settings(data=tmp_path), say=lambda _: None) as stack:
        assert await states(stack.store, jobs) == [JobState.SUCCEEDED, JobState.QUEUED]
    assert kept_files(tmp_path) == []


async def test_what_is_kept_for_another_ledger_or_was_changed_is_left_alone(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker_id, jobs = await started(store, 1)
    unsaved_outcomes.keep(tmp_path, "elsewhere:5432/other", worker_id, [succeeded(jobs[0], "CANARY")])
    (tmp_path / unsaved_outcomes.FOLDER / "mine.jsonl").write_text('{"worker": "w"\nCANARY\n')
    assert await unsaved_outcomes.replay(tmp_path, store) == 0
    assert len(kept_files(tmp_path)) == 2
    assert await states(store, jobs) == [JobState.RUNNING]
    assert "elsewhere:5432/other" in caplog.text
    assert "mine.jsonl" in caplog.text
    assert "CANARY" not in caplog.text


async def test_an_outcome_that_cannot_be_kept_or_written_takes_no_neighbour_along(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_id, jobs = await started(store, 3)
    lost, refused, fine = (succeeded(job) for job in jobs)
    assert lost.result is not None
    lost.result.body = "\ud800"
    unsaved_outcomes.keep(tmp_path, store.place, worker_id, [lost, refused, fine])
    settle = store.claims.settle

    async def picky(holder: str, outcomes: list[Settled]) -> set[str]:
        if any(each.job_id == refused.job_id for each in outcomes):
            raise unsaved_outcomes.StoreError("no")
        return await settle(holder, outcomes)

    monkeypatch.setattr(store.claims, "settle", picky)
    assert await unsaved_outcomes.replay(tmp_path, store) == 1
    assert await states(store, jobs) == [JobState.RUNNING, JobState.RUNNING, JobState.SUCCEEDED]


async def test_without_anything_kept_there_is_nothing_to_do(store: Store, tmp_path: Path) -> None:
    await run_all(store, await new_worker(store), await singles(store, 1))
    assert await unsaved_outcomes.replay(tmp_path / "never made", store) == 0
