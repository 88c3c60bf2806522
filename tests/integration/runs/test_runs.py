"""A run is resumed, not repeated: what `understudy run` keeps in the ledger between two calls of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ledger_help import failed as failed_outcome
from ledger_help import new_worker, outputs_of, run_all, sqlite_ledger, succeeded

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.request.wire import RequestError
from understudy.models.routing.request_options import RouteOptions
from understudy.models.routing.route import Router
from understudy.models.state import BatchState, JobState
from understudy.models.store import Store
from understudy.models.store.work.runs import RunLine
from understudy.models.tenants import TenantLimits
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.reruns import Retry, retry_answered, retry_failed
from understudy.producer.runs.resume import begin
from understudy.producer.runs.retry_chain import line_of, summary, views_of
from understudy.producer.runs.runs import BadInput, Run, RunRequest

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "lead": {
                "kind": "openai",
                "base_url": "http://127.0.0.1:1/v1",
                "prices": {"large": {"input": 1.0, "output": 2.0}},
            }
        },
        "chains": {"default": {"steps": ["lead/large"]}},
    }
)


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite_ledger(tmp_path / "data") as store:
        yield store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"custom_id":"r{n}","prompt":"{n}"}}\n' for n in range(1, 6)))
    return path


async def start(
    store: Store, source: Path, shape: Shape | None = None, settings: Settings = SETTINGS, **flags: Any
) -> Run:
    run = await begin(store, settings, RunRequest(source, source.with_name("out.jsonl"), shape or Shape(), **flags))
    await store.runs.keep(run.batches, 3600.0)
    return run


async def ids_of(store: Store, batch_id: str) -> list[str]:
    return [job.id async for job in store.reruns.unfinished(batch_id)]


async def fail(store: Store, worker: str, ids: list[str], cls: FailureClass = FailureClass.SERVER) -> None:
    await store.claims.settle(worker, [failed_outcome(job, cls) for job in await store.claims.start(worker, ids)])


async def states(store: Store, run: Run) -> dict[str, JobState]:
    return {row.custom_id: row.state async for row in store.outputs.of_run(run.id)}


async def test_an_input_is_accepted_once_and_found_again(sqlite: Store, source: Path) -> None:
    first = await start(sqlite, source)
    again = await start(sqlite, source)
    assert again.batches == first.batches
    (view,) = await views_of(sqlite, first.batches)
    assert (view.state, view.total, view.source) == (BatchState.IN_PROGRESS, 5, "in.jsonl")


async def test_what_was_answered_is_not_tried_again(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source)
    worker = await new_worker(sqlite)
    await run_all(sqlite, worker, (await ids_of(sqlite, run.batches[0]))[:3])
    again = await start(sqlite, source)
    assert again.batches == run.batches
    assert again.compared is not None
    assert again.compared.words == "3 answered, 2 not asked yet"


async def test_failed_lines_are_tried_again_except_those_that_cannot_succeed(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source)
    worker = await new_worker(sqlite)
    ids = await ids_of(sqlite, run.batches[0])
    await fail(sqlite, worker, ids[:1], FailureClass.BAD_REQUEST)
    await fail(sqlite, worker, ids[1:2], FailureClass.CONTENT_FILTER)
    await fail(sqlite, worker, ids[2:4], FailureClass.SERVER)
    await run_all(sqlite, worker, ids[4:])
    await sqlite.batch_lifecycle.close_finished()

    again = await start(sqlite, source)

    assert len(again.batches) == 2
    retried = [job async for job in sqlite.reruns.unfinished(again.batches[1])]
    assert [(job.custom_id, job.line) for job in retried] == [("r3", 3), ("r4", 4)]
    assert not {job.id for job in retried} & set(ids)
    sums = again.summary(await views_of(sqlite, again.batches))
    assert (sums.total, sums.succeeded, sums.failed, sums.open) == (5, 1, 2, True)
    await run_all(sqlite, worker, [job.id for job in retried])
    await sqlite.batch_lifecycle.close_finished()
    sums = again.summary(await views_of(sqlite, again.batches))
    assert (sums.total, sums.succeeded, sums.failed, sums.open) == (5, 3, 2, False)
    assert await states(sqlite, again) == {
        **dict.fromkeys(("r1", "r2"), JobState.FAILED),
        **dict.fromkeys(("r3", "r4", "r5"), JobState.SUCCEEDED),
    }
    assert (await start(sqlite, source)).batches == again.batches


async def test_a_failed_line_of_an_open_run_is_tried_again_together_with_what_is_left(
    sqlite: Store, source: Path
) -> None:
    run = await start(sqlite, source)
    worker = await new_worker(sqlite)
    await fail(sqlite, worker, (await ids_of(sqlite, run.batches[0]))[:1])
    second = await start(sqlite, source)
    first, newest = await views_of(sqlite, second.batches)
    assert (first.state, newest.state, newest.total) == (BatchState.CANCELLED, BatchState.IN_PROGRESS, 5)
    assert second.compared is not None
    assert second.compared.words == "1 to try again, 4 not asked yet"
    assert (await start(sqlite, source)).batches == second.batches, "nothing has failed since"


async def test_cancelled_lines_are_taken_up_by_a_rerun(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source)
    await run_all(sqlite, await new_worker(sqlite), (await ids_of(sqlite, run.batches[0]))[:2])
    await sqlite.batch_lifecycle.cancel(run.batches[0])
    while await sqlite.batch_lifecycle.cancel_slice():
        continue
    await sqlite.batch_lifecycle.close_finished()
    again = await start(sqlite, source)
    assert [job.custom_id async for job in sqlite.reruns.unfinished(again.batches[1])] == ["r3", "r4", "r5"]


async def test_bad_lines_are_all_reported_and_nothing_is_accepted(sqlite: Store, source: Path) -> None:
    source.write_text('{"prompt":"a"}\n{oops\n{"prompt":"b"}\n{}\n')
    with pytest.raises(BadInput) as refused:
        await start(sqlite, source)
    assert ([bad.line for bad in refused.value.bad], refused.value.good) == ([2, 4], 2)
    assert await sqlite.batches.latest() is None


async def test_bad_lines_are_skipped_when_that_is_asked_for(sqlite: Store, source: Path) -> None:
    source.write_text('{"prompt":"a"}\n{oops\n{"prompt":"b"}\n')
    run = await start(sqlite, source, skip_bad=True)
    assert [bad.line for bad in run.skipped] == [2]
    assert [job.line async for job in sqlite.reruns.unfinished(run.batches[0])] == [1, 3]


async def test_nothing_but_bad_lines_is_refused_even_then(sqlite: Store, source: Path) -> None:
    source.write_text("{oops\n")
    with pytest.raises(BadInput):
        await start(sqlite, source, skip_bad=True)


async def test_an_empty_input_is_refused(sqlite: Store, source: Path) -> None:
    source.write_text("\n\n")
    with pytest.raises(InputError, match="has no lines"):
        await start(sqlite, source)
    assert await sqlite.batches.latest() is None


async def test_an_interrupted_acceptance_starts_over(sqlite: Store, source: Path) -> None:
    """As after a kill: some lines and their batch are there, but it was never opened."""
    run = await start(sqlite, source, fresh=True)
    run_id = run.id
    await start(sqlite, source, fresh=True)
    await sqlite.runs.forget(run_id)
    [known] = await sqlite.runs.batches_of(run_id)
    await sqlite.batch_lifecycle.cancel(known)
    while await sqlite.batch_lifecycle.cancel_slice():
        continue
    await sqlite.batch_lifecycle.close_finished()
    await sqlite.retention.discard_batch(known)
    broken = NewBatch("batch_broken_off", identity=f"{run_id}-broken", expires_at=await sqlite.now() + 60)
    await sqlite.intake.create_batch(broken)
    await sqlite.runs.add_lines(run_id, 1, [RunLine(1, 1, "r1", True, "0" * 32, "chain", None, "job_gone")])
    again = await start(sqlite, source)
    assert "batch_broken_off" not in again.batches
    assert len(await ids_of(sqlite, again.batches[0])) == 5


async def test_a_retry_that_was_broken_off_counts_for_nothing(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source)
    await fail(sqlite, await new_worker(sqlite), (await ids_of(sqlite, run.batches[0]))[:1])
    broken = NewBatch(new_id("batch"), retry_of=run.batches[0], expires_at=await sqlite.now() + 60)
    await sqlite.intake.create_batch(broken)
    await sqlite.intake.add_jobs(broken.id, [job async for job in _renamed(sqlite, run.batches[0])])
    retry = (await retry_failed(sqlite, SETTINGS, run.batches[0])).batch_id
    assert retry is not None
    assert await line_of(sqlite, run.batches[0]) == [run.batches[0], retry]


async def _renamed(store: Store, batch_id: str) -> AsyncIterator[NewJob]:
    async for ended in store.reruns.unanswered_jobs(batch_id):
        ended.job.id = new_id("job")
        yield ended.job


async def test_there_is_nothing_to_retry_in_a_batch_that_succeeded(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source)
    worker = await new_worker(sqlite)
    jobs = await sqlite.claims.start(worker, await ids_of(sqlite, run.batches[0]))
    await sqlite.claims.settle(worker, [succeeded(job) for job in jobs])
    await sqlite.batch_lifecycle.close_finished()
    assert await retry_failed(sqlite, SETTINGS, run.batches[0]) == Retry()
    assert await retry_failed(sqlite, SETTINGS, "batch_unknown") == Retry()
    assert len(await outputs_of(sqlite, run.batches[0])) == 5


async def test_what_a_provider_answered_is_asked_again_along_another_chain(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source)
    worker = await new_worker(sqlite)
    ids = await ids_of(sqlite, run.batches[0])
    by_understudy = [succeeded(job) for job in await sqlite.claims.start(worker, ids[:2])]
    for each in by_understudy:
        assert each.result is not None
        each.result.provider = "understudy"
    await sqlite.claims.settle(worker, by_understudy)
    await run_all(sqlite, worker, ids[2:])
    await sqlite.batch_lifecycle.close_finished()
    first = run.batches[0]
    assert await retry_answered(sqlite, SETTINGS, first, ["nobody"], RouteOptions()) == Retry()
    again = (
        await retry_answered(sqlite, SETTINGS, first, ["nobody", "understudy"], RouteOptions(model="lead/other"))
    ).batch_id
    assert again is not None
    jobs = [job async for job in sqlite.reruns.unfinished(again)]
    assert [(job.custom_id, str(job.chain.steps[0])) for job in jobs] == [
        ("r1", "lead/other"),
        ("r2", "lead/other"),
    ]
    sums = summary(await views_of(sqlite, [first, again]))
    assert (sums.total, sums.succeeded, sums.failed, sums.open) == (5, 3, 0, True)
    assert await retry_answered(sqlite, SETTINGS, first, ["understudy"], RouteOptions()) == Retry()  # already resumed
    await run_all(sqlite, worker, [job.id for job in jobs])
    await sqlite.batch_lifecycle.close_finished()
    sums = summary(await views_of(sqlite, [first, again]))
    assert (sums.total, sums.succeeded, sums.failed, sums.open) == (5, 5, 0, False)
    third = (await retry_answered(sqlite, SETTINGS, first, ["lead"], RouteOptions())).batch_id
    assert third is not None
    assert [job.custom_id async for job in sqlite.reruns.unfinished(third)] == ["r1", "r2", "r3", "r4", "r5"]


ELSEWHERE = Settings.model_validate(
    {
        "providers": {
            "lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "tags": {"region": "eu", "zdr": True}},
            "far": {"kind": "openai", "base_url": "http://127.0.0.1:2/v1", "tags": {"region": "us", "zdr": True}},
        },
        "chains": {
            "default": {"steps": ["lead/large"]},
            "both": {"steps": ["far/large", "lead/other"]},
            "halves": {"steps": [["lead/a", "lead/b"]]},
        },
    }
)


async def answered_run(store: Store, source: Path, **route: Any) -> str:
    run = await start(store, source, Shape(route=RouteOptions(**route)), ELSEWHERE)
    worker = await new_worker(store)
    await run_all(store, worker, await ids_of(store, run.batches[0]))
    await store.batch_lifecycle.close_finished()
    return run.batches[0]


async def test_a_retry_along_another_chain_keeps_the_data_rules_of_its_lines(sqlite: Store, source: Path) -> None:
    first = await answered_run(sqlite, source, require={"region": "eu"})
    with pytest.raises(RequestError, match="the data rules allow no step: 'far/large' breaks the rule"):
        await retry_answered(sqlite, ELSEWHERE, first, ["lead"], RouteOptions(model="far/large"))
    assert await line_of(sqlite, first) == [first]
    again = (await retry_answered(sqlite, ELSEWHERE, first, ["lead"], RouteOptions(chain="both"))).batch_id
    assert again is not None
    assert {str(job.chain.require) async for job in sqlite.reruns.unfinished(again)} == {"{'region': ('eu',)}"}


async def test_a_retry_is_accepted_under_the_rules_that_its_tenant_has_by_now(sqlite: Store, source: Path) -> None:
    first = (await start(sqlite, source, settings=ELSEWHERE)).batches[0]
    worker = await new_worker(sqlite)
    await fail(sqlite, worker, await ids_of(sqlite, first))
    await sqlite.tenants.set_limits(TenantLimits("default", require={"zdr": ("true",)}), actor="a test")
    again = (await retry_failed(sqlite, ELSEWHERE, first)).batch_id
    assert again is not None
    assert {str(job.chain.require) async for job in sqlite.reruns.unfinished(again)} == {"{'zdr': ('true',)}"}
    await fail(sqlite, worker, await ids_of(sqlite, again))
    await sqlite.batch_lifecycle.close_finished()
    await sqlite.tenants.set_limits(TenantLimits("default", require={"region": ("us",)}), actor="a test")
    with pytest.raises(RequestError, match="'lead/large' breaks the rule require region = us"):
        await retry_failed(sqlite, ELSEWHERE, first)


async def test_a_retry_along_weighted_steps_has_the_side_of_each_lines_name(sqlite: Store, source: Path) -> None:
    first = await answered_run(sqlite, source)
    again = (await retry_answered(sqlite, ELSEWHERE, first, ["lead"], RouteOptions(chain="halves"))).batch_id
    assert again is not None
    sides = {job.custom_id: str(job.chain.steps[0]) async for job in sqlite.reruns.unfinished(again)}
    router = Router(ELSEWHERE, RouteOptions(chain="halves"))
    assert sides == {name: str(router.resolve({}, name)[0].steps[0]) for name in sides}
    assert set(sides.values()) == {"lead/a", "lead/b"}


async def test_the_budget_of_a_run_is_for_its_retries_too(sqlite: Store, source: Path) -> None:
    first = await start(sqlite, source, budget_usd=1.0)
    ids = await ids_of(sqlite, first.batches[0])
    worker = await new_worker(sqlite)
    await run_all(sqlite, worker, ids[:3])  # 0.25 each
    await fail(sqlite, worker, ids[3:])
    await sqlite.batch_lifecycle.close_finished()
    again = await start(sqlite, source)
    *_, retry = await views_of(sqlite, again.batches)
    assert (len(again.batches), retry.budget_usd) == (2, pytest.approx(0.25))
    await start(sqlite, source, budget_usd=5.0)
    *_, retry = await views_of(sqlite, again.batches)
    assert retry.budget_usd == pytest.approx(4.25)
    with pytest.raises(InputError, match=r"this run has already cost 0\.75 USD; give a larger --budget-usd"):
        await start(sqlite, source, budget_usd=0.75)
    *_, retry = await views_of(sqlite, again.batches)
    assert retry.budget_usd == pytest.approx(4.25), "nothing is changed"


async def test_a_run_that_spent_its_budget_goes_on_with_a_larger_one(sqlite: Store, source: Path) -> None:
    run = await start(sqlite, source, budget_usd=1.0)
    await sqlite.budgets.pause_spent(run.batches[0], 1.0, "its budget of 1.00 USD is reached: …")
    await start(sqlite, source)
    [view] = await views_of(sqlite, run.batches)
    assert view.paused is not None
    await start(sqlite, source, budget_usd=2.0)
    [view] = await views_of(sqlite, run.batches)
    assert (view.paused, view.budget_usd) == (None, 2.0)
