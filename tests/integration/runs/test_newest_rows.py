"""What is shown for a line that was asked several times."""

from ledger_help import failed, new_worker, open_batch, succeeded

from understudy.models.store import Store
from understudy.producer.runs.retry_chain import newest_rows


async def answer(store: Store, batch_id: str, ids: list[str], words: list[str | None]) -> str:
    """End the jobs with these answers; None: it fails. Returns the batch."""
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    outcomes = [failed(job) if word is None else succeeded(job, word) for job, word in zip(jobs, words, strict=True)]
    await store.claims.settle(worker, outcomes)
    return batch_id


async def test_the_newest_answer_counts_and_a_later_failure_does_not_hide_it(store: Store) -> None:
    """Lines: answered after a retry; retried without an answer; never answered; answered only by the second retry."""
    first = await answer(store, *await open_batch(store, 4), ["a1", "b1", None, None])
    second = await answer(store, *await open_batch(store, 4, retry_of=first), ["a2", None, None, None])
    third = await answer(store, *await open_batch(store, 4, retry_of=second), ["a3", None, None, "d3"])

    shown = [(row.custom_id, row.job_id, row.body) async for row in newest_rows(store, [first, second, third])]

    assert [(name, body) for name, _, body in shown] == [
        ("line-1", '{"answer":"a3"}'),
        ("line-2", '{"answer":"b1"}'),
        ("line-3", None),
        ("line-4", '{"answer":"d3"}'),
    ], "in the order of the input"
    newest_failure = [row.job_id async for row in store.outputs.of_batch(third) if row.custom_id == "line-3"]
    assert [job_id for name, job_id, _ in shown if name == "line-3"] == newest_failure
