"""What people read about batches, jobs and provider calls."""

from ledger_help import (
    CHAIN,
    call,
    failed,
    new_worker,
    open_batch,
    outputs_of,
    put_back,
    request_of,
    run_all,
    singles,
    succeeded,
)

from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import ResultRecord
from understudy.models.objects.job import job_object
from understudy.models.state import BatchState, JobState
from understudy.models.store import Store


async def test_a_batch_shows_its_counts_costs_and_why_its_jobs_wait(store: Store) -> None:
    batch_id, ids = await open_batch(store, 6)
    worker = await new_worker(store)
    good, other, bad, waits, *_ = await store.claims.start(worker, ids[:5])
    fell_back = succeeded(other, fallback_index=1)
    fell_back.attempts.insert(0, call(other, FailureClass.RATE_LIMIT))
    later = await store.now() + 1000
    await store.claims.settle(
        worker, [succeeded(good), fell_back, failed(bad), put_back(waits, later, "lead is cooling")]
    )

    view = await store.batches.view(batch_id)

    assert view is not None
    assert {state: count for state, count in view.counts.items() if count} == {
        JobState.SUCCEEDED: 2,
        JobState.FAILED: 1,
        JobState.RUNNING: 1,
        JobState.QUEUED: 2,
    }
    (lead,) = view.by_deployment
    assert (lead.provider, lead.model, lead.answered, lead.fallbacks) == ("lead", "large", 2, 1)
    assert lead.failures == {"rate_limit": 1, "bad_request": 1}
    assert (lead.input_tokens, lead.output_tokens, lead.cost_usd, view.cost_usd) == (6, 10, 0.5, 0.5)
    assert view.waits == [("lead is cooling", 1)]
    assert 0 < view.recent_per_s <= 3 / 60


async def test_a_put_back_job_that_is_due_does_not_say_what_kept_it(store: Store) -> None:
    batch_id, ids = await open_batch(store, 3)
    worker = await new_worker(store)
    waits, due, _ = await store.claims.start(worker, ids)
    now = await store.now()
    outcomes = [put_back(waits, now + 1000, "its budget is reached"), put_back(due, now - 1, "its budget is reached")]
    await store.claims.settle(worker, outcomes)
    view = await store.batches.view(batch_id)
    assert view is not None and view.waits == [("its budget is reached", 1)]


async def test_a_batch_that_was_paused_and_cancelled_is_paused_no_more(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    worker = await new_worker(store)
    (running,) = await store.claims.start(worker, ids[:1])
    await store.batch_lifecycle.pause(batch_id, "look")
    assert await store.batch_lifecycle.cancel(batch_id)
    view = await store.batches.view(batch_id)
    assert view is not None and (view.state, view.paused) == (BatchState.CANCELLING, None)
    await store.batch_lifecycle.cancel_slice()
    await store.claims.settle(worker, [succeeded(running)])
    await store.batch_lifecycle.close_finished()
    view = await store.batches.view(batch_id)
    assert view is not None and (view.state, view.paused) == (BatchState.CANCELLED, None)


async def test_a_batch_whose_last_call_ended_while_it_was_paused_is_completed_and_not_paused(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    worker = await new_worker(store)
    (running,) = await store.claims.start(worker, ids)
    await store.batch_lifecycle.pause(batch_id, "look")
    await store.claims.settle(worker, [succeeded(running)])
    await store.batch_lifecycle.close_finished()
    view = await store.batches.view(batch_id)
    assert view is not None and (view.state, view.paused) == (BatchState.COMPLETED, None)


async def test_an_unknown_batch_is_none(store: Store) -> None:
    assert await store.batches.view("batch_unknown") is None


async def test_batches_are_listed_newest_first_page_by_page(store: Store) -> None:
    made = [(await open_batch(store, 1))[0] for _ in range(3)]
    acmes, _ = await open_batch(store, 1, tenant="acme")
    first = await store.batches.page("default", limit=2)
    assert [view.id for view in first] == [made[2], made[1]]
    assert [view.id for view in await store.batches.page("default", before=first[-1].id)] == [made[0]]
    assert [view.id for view in await store.batches.page()] == [acmes, *reversed(made)]


async def test_outputs_come_in_order_over_many_pages_also_while_others_run(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2_300)
    worker = await new_worker(store)
    await run_all(store, worker, ids[:1_150])
    await run_all(store, worker, ids[1_150:2_299])
    rows = await outputs_of(store, batch_id)
    assert [row.job_id for row in rows] == ids[:2_299]
    assert (rows[0].line, rows[0].custom_id) == (1, "line-1")


async def test_cancelled_and_expired_jobs_are_in_the_output_without_a_result(store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    await store.jobs.cancel(ids[0])
    (row,) = await outputs_of(store, batch_id)
    assert (row.state, row.status_code, row.body, row.error) == (JobState.CANCELLED, None, None, None)


async def test_a_job_is_shown_with_its_result_and_attempts(store: Store) -> None:
    ids = await singles(store, 1)
    view = await store.jobs.view(ids[0])
    assert view is not None and (view.state, view.status_code, view.calls) == (JobState.QUEUED, None, [])
    await run_all(store, await new_worker(store), ids)
    view = await store.jobs.view(ids[0])
    assert view is not None
    assert (view.state, view.status_code, view.provider, view.attempts) == (JobState.SUCCEEDED, 200, "lead", 1)
    assert (await request_of(store, ids[0]), await store.jobs.answer(ids[0])) == ('{"messages":[]}', '{"answer":"yes"}')
    assert [each["cost_usd"] for each in view.calls or ()] == [0.25]
    assert await store.jobs.view("job_unknown") is None


async def test_attempts_are_filtered_and_paged(store: Store) -> None:
    batch_id, ids = await open_batch(store, 4)
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [failed(jobs[0], FailureClass.SERVER), *map(succeeded, jobs[1:])])

    assert len(await store.jobs.attempts(batch_id=batch_id, provider="lead", key="main")) == 4
    assert [each["job_id"] for each in await store.jobs.attempts(failure=FailureClass.SERVER)] == ids[:1]
    assert len(await store.jobs.attempts(job_id=ids[1])) == 1
    assert await store.jobs.attempts(since=2.0) == []
    assert await store.jobs.attempts(until=1.0) == []
    first = await store.jobs.attempts(limit=3)
    assert [each["job_id"] for each in await store.jobs.attempts(after=first[-1]["id"])] == ids[3:]


async def test_latencies_are_summed_up_by_deployment(store: Store) -> None:
    batch_id, ids = await open_batch(store, 100)
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [succeeded(job, latency_ms=ms) for ms, job in enumerate(jobs, 1)])
    assert await store.jobs.latency_percentiles(batch_id) == {("lead", "large"): (51, 96)}


async def test_jobs_without_an_answer_can_be_taken_up_again_and_say_how_they_failed(store: Store) -> None:
    batch_id, ids = await open_batch(store, 4)
    worker = await new_worker(store)
    refused, overloaded, fine = await store.claims.start(worker, ids[:3])
    shown = failed(overloaded)
    shown.result = ResultRecord(503, '{"error":{},"extra_fields":{"failure":"quota"}}', failure=FailureClass.OVERLOADED)
    await store.claims.settle(worker, [failed(refused), shown, succeeded(fine)])

    again = [each async for each in store.reruns.unanswered_jobs(batch_id)]
    assert [(each.job.id, each.job.line, each.job.body, each.job.chain, each.failure) for each in again] == [
        (ids[0], 1, '{"messages":[]}', CHAIN, FailureClass.BAD_REQUEST),
        (ids[1], 2, '{"messages":[]}', CHAIN, FailureClass.OVERLOADED),
    ]
    assert [each.id async for each in store.reruns.unfinished(batch_id)] == [ids[3]]


async def test_the_rate_is_that_of_the_time_since_the_first_call(store: Store) -> None:
    batch_id, ids = await open_batch(store, 100)
    worker = await new_worker(store)
    now = await store.now()
    outcomes = [succeeded(job) for job in await store.claims.start(worker, ids[:40])]
    for outcome in outcomes:
        outcome.attempts[0].started_at = now - 4.0
    await store.claims.settle(worker, outcomes)
    view = await store.batches.view(batch_id)
    assert view is not None and 5.0 < view.recent_per_s <= 10.0


async def test_unknown_costs_are_counted_next_to_the_sum(store: Store) -> None:
    batch_id, ids = await open_batch(store, 3)
    worker = await new_worker(store)
    known, *others = [succeeded(job) for job in await store.claims.start(worker, ids)]
    for outcome in others:
        assert outcome.result is not None
        outcome.result.unpriced = outcome.attempts[0].unpriced = True
        outcome.attempts[0].cost_usd = 0.0
    await store.claims.settle(worker, [known, *others])
    view = await store.batches.view(batch_id)
    assert view is not None and (view.cost_usd, view.known_cost_usd, view.unpriced_calls) == (0.25, 0.25, 2)
    assert [row.cost_usd for row in await outputs_of(store, batch_id)] == [0.0, None, None]
    assert [each["cost_usd"] for each in await store.jobs.attempts(batch_id=batch_id)] == [0.25, None, None]
    job = await store.jobs.view(ids[1])
    assert job is not None and (job.cost_usd, job.spent_usd) == (None, None)
    assert job_object(job, CHAIN, "")["cost_usd"] is None
