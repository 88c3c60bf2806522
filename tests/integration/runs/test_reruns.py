"""Requests without an answer are run again, with the same chain or another one: of a batch, and of a run."""

import pytest
from ledger_help import CHAIN, failed, new_jobs, new_worker, open_batch, outputs_of, run_all, succeeded

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import of_batch
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.jobs.views import BatchView
from understudy.models.request.wire import RequestError
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.producer.runs.reruns import (
    EVERYTHING,
    FILLED_WITHIN_S,
    RetryUnderWay,
    retry_answered,
    retry_failed,
    take_another_chain,
)
from understudy.producer.runs.retry_chain import rows_of

PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("large", "x", "y")}
PROVIDER = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "prices": PRICES}
SETTINGS = Settings.model_validate(
    {
        "providers": {"lead": {**PROVIDER, "tags": {"region": "eu"}}, "far": {**PROVIDER, "tags": {"region": "us"}}},
        "chains": {"other": {"steps": ["far/x", "lead/y"]}},
        "batches": {"canary_lines": 0},
    }
)


async def view_of(store: Store, batch_id: str) -> BatchView:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view


async def end(store: Store, ids: list[str], *outcomes: FailureClass | None) -> None:
    """End the first job like this; None: with an answer."""
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids[: len(outcomes)])
    pairs = zip(jobs, outcomes, strict=True)
    await store.claims.settle(worker, [succeeded(job) if cls is None else failed(job, cls) for job, cls in pairs])
    await store.workers.remove(worker)


async def steps_of(store: Store, batch_id: str) -> dict[str, str]:
    return {job.custom_id: str(job.chain.steps[0]) async for job in store.reruns.unfinished(batch_id)}


async def test_what_would_fail_again_is_counted_and_left_out(store: Store) -> None:
    batch_id, ids = await open_batch(store, 5)
    refused, filtered, server = FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER, FailureClass.SERVER
    await end(store, ids, refused, refused, filtered, server, None)
    retry = await retry_failed(store, SETTINGS, batch_id)
    assert retry.batch_id is not None
    assert (retry.jobs, (await view_of(store, retry.batch_id)).total) == (1, 1)
    assert retry.left_out_words == (
        "not retried, because they would fail the same way: 2 bad_request, 1 content_filter; --all retries them, too"
    )
    nothing = await retry_failed(store, SETTINGS, batch_id)
    assert (nothing.batch_id, nothing.left_out.total()) == (None, 3)
    everything = await retry_failed(store, SETTINGS, batch_id, EVERYTHING)
    assert (everything.jobs, everything.left_out_words) == (3, "")
    assert (await view_of(store, batch_id)).retries == [retry.batch_id]


async def test_another_chain_takes_what_the_first_one_refused(store: Store) -> None:
    batch_id, ids = await open_batch(store, 4)
    await end(store, ids, FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER, FailureClass.CRASHED, None)
    retry = await retry_failed(store, SETTINGS, batch_id, route=RouteOptions(chain="other"))
    assert retry.batch_id is not None
    assert await steps_of(store, retry.batch_id) == {"line-1": "far/x", "line-2": "far/x"}
    assert dict(retry.left_out) == {FailureClass.CRASHED: 1}
    with pytest.raises(RequestError, match="unknown chain 'othr'"):
        await retry_failed(store, SETTINGS, batch_id, EVERYTHING, RouteOptions(chain="othr"))
    retries = (await view_of(store, retry.batch_id)).retries
    assert retries == [], "what was refused leaves nothing"


async def test_one_retry_of_a_batch_is_accepted_at_a_time(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    await end(store, ids, FailureClass.SERVER)
    being_filled = NewBatch(new_id("batch"), retry_of=batch_id, identity=f"retry-of-{batch_id}", expires_at=9e9)
    await store.intake.create_batch(being_filled)
    with pytest.raises(RetryUnderWay, match=f"another retry of {batch_id} is being accepted"):
        await retry_failed(store, SETTINGS, batch_id)


async def test_what_a_killed_retry_left_is_in_nobodys_way_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, ids = await open_batch(store, 1)
    await end(store, ids, FailureClass.SERVER)
    left = NewBatch(new_id("batch"), retry_of=batch_id, identity=f"retry-of-{batch_id}", expires_at=9e9)
    await store.intake.create_batch(left)
    monkeypatch.setattr("understudy.producer.runs.reruns.FILLED_WITHIN_S", -FILLED_WITHIN_S)
    assert (await retry_failed(store, SETTINGS, batch_id)).jobs == 1
    assert await store.batches.view(left.id) is None


async def test_a_held_batch_takes_another_chain_for_what_failed_and_for_what_waits(store: Store) -> None:
    batch_id, ids = await open_batch(store, 5)
    await end(store, ids, FailureClass.MODEL_MISSING, None)
    await store.batch_lifecycle.pause(batch_id, "held")
    waiting, retry = await take_another_chain(store, SETTINGS, batch_id, RouteOptions(model="lead/right"))
    assert (waiting, retry.jobs) == (3, 1)
    assert retry.batch_id is not None
    assert await steps_of(store, batch_id) == dict.fromkeys(("line-3", "line-4", "line-5"), "lead/right")
    assert await steps_of(store, retry.batch_id) == {"line-1": "lead/right"}
    await store.batch_lifecycle.resume(batch_id)
    assert {lane.chain_id for lane in await store.planning.lanes()} == {
        job.chain.id async for job in store.reruns.unfinished(retry.batch_id)
    }, "the planner sees no lane of the chain that nothing waits for"
    worker = await new_worker(store)
    await run_all(store, worker, ids[2:])
    assert len(await outputs_of(store, batch_id)) == 5


async def test_another_chain_keeps_the_data_rules_of_what_waits(store: Store) -> None:
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, expires_at=await store.now() + 60))
    ruled = CHAIN.model_copy(update={"require": {"region": ("eu",)}})
    await store.intake.add_jobs(batch_id, await new_jobs(store, 2, chain=ruled))
    await store.intake.open_batch(batch_id, 2)
    with pytest.raises(RequestError, match="'far/x' breaks the rule"):
        await take_another_chain(store, SETTINGS, batch_id, RouteOptions(model="far/x"))
    assert (await take_another_chain(store, SETTINGS, batch_id, RouteOptions(chain="other")))[0] == 2
    chains = [job.chain async for job in store.reruns.unfinished(batch_id)]
    assert {str(chain.require) for chain in chains} == {"{'region': ('eu',)}"}


async def test_answers_of_a_provider_are_asked_again_and_stay_until_they_are_replaced(store: Store) -> None:
    batch_id, ids = await open_batch(store, 3)
    await end(store, ids, None, None, FailureClass.SERVER)
    again = (await retry_answered(store, SETTINGS, batch_id, ["lead"], RouteOptions())).batch_id
    assert again is not None
    await end(store, [job.id async for job in store.reruns.unfinished(again)], None, FailureClass.SERVER)
    shown = [(row.custom_id, row.state, row.job_id in ids) async for row in rows_of(store, batch_id)]
    assert shown == [
        ("line-1", JobState.SUCCEEDED, False),
        ("line-2", JobState.SUCCEEDED, True),
        ("line-3", JobState.FAILED, True),
    ]


async def test_a_batch_that_goes_on_and_its_retry_share_what_is_left_of_the_budget(store: Store) -> None:
    batch_id, ids = await open_batch(store, 4, budget_usd=10.0)
    worker = await new_worker(store)
    await run_all(store, worker, ids[:1])  # 0.25
    await end(store, ids[1:], FailureClass.SERVER)
    retry = await retry_failed(store, SETTINGS, batch_id)
    assert retry.batch_id is not None
    subjects = [of_batch(batch_id), of_batch(retry.batch_id)]
    budgets = await store.budgets.read(subjects)
    left = [balance.left_usd for each in subjects if (balance := budgets[each].balance) is not None]
    assert left == [pytest.approx(6.5), pytest.approx(3.25)], "two jobs wait, one is tried again"
