"""One example of what a provider said for each kind of failure, at the end of a run."""

from ledger_help import call, failed, new_worker, open_batch

from understudy.models.failure import FailureClass
from understudy.models.store import Store
from understudy.producer.runs.retry_chain import views_of
from understudy.producer.status.failed_calls import failure_examples


async def test_each_kind_of_failure_has_one_example_the_most_frequent_first(store: Store) -> None:
    batch_id, ids = await open_batch(store, 5)
    worker = await new_worker(store)
    kinds = [FailureClass.SERVER, *[FailureClass.BAD_REQUEST] * 3]
    outcomes = []
    for number, (job, cls) in enumerate(zip(await store.claims.start(worker, ids[:4]), kinds, strict=True)):
        outcome = failed(job, cls)
        outcome.attempts = [call(job, cls, message=f"words\nof call {number} " + "x" * 300)]
        outcomes.append(outcome)
    await store.claims.settle(worker, outcomes)
    bad, server, look = await failure_examples(store, await views_of(store, [batch_id]))
    assert bad.startswith("for example at lead/large: bad_request 500: words of call 3 xxx") and bad.endswith("…")
    assert server.startswith("for example at lead/large: server 500: words of call 0")
    assert look == (
        f"`understudy attempts {batch_id}` lists all calls; add --failure bad_request to list only these failures."
    )


async def test_where_no_call_failed_there_is_nothing_to_say(store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    assert await failure_examples(store, await views_of(store, [batch_id])) == []
