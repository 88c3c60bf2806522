"""What `understudy prune` deletes and what it keeps, by the age of each thing and of what was made from it."""

from ledger_help import new_jobs, new_worker, open_batch, run_all

from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.models.store.retention import Prunable
from understudy.models.store.tallies import ACCEPTED_PERIOD_S
from understudy.models.store.work.intake import NamedRequest

LATER_S = 10.0


async def named_job(store: Store, key: str) -> str:
    (job,) = await new_jobs(store, 1)
    assert await store.intake.accept_jobs("default", [job], NamedRequest(key, "hash")) is None
    return job.id


async def batch_of_file(store: Store, file_id: str) -> str:
    deadline = await store.now() + 600
    new = NewBatch(new_id("batch"), Priority.BULK, expires_at=deadline, input_file_id=file_id)
    return await store.intake.accept_batch(new, NamedRequest(new.id, "hash"))


async def test_what_ended_goes_with_all_that_was_only_there_for_it(store: Store) -> None:
    ended, waiting = await named_job(store, "ended"), await named_job(store, "waiting")
    worker = await new_worker(store)
    _, ids = await open_batch(store, 2)
    await run_all(store, worker, [ended, *ids])
    await store.batch_lifecycle.close_finished()
    unread, read = new_id("file"), new_id("file")
    for each in (unread, read):
        await store.files.add(each, "default", "in.jsonl", 3, 1)
    going = await batch_of_file(store, read)
    now = await store.now()
    old_minute = int(now // ACCEPTED_PERIOD_S) - 60
    await store.tenants.record_accepted("default", "api_1", {old_minute: 5, old_minute + 5: 5, old_minute + 60: 7})

    found = await store.retention.prunable(now + LATER_S)
    assert (found.batches, found.jobs, found.files, found.names) == (1, 1, 1, 1)
    assert await store.retention.prune(now + LATER_S) == (found.batches, found.jobs)
    assert await store.retention.prune_names(now + LATER_S) == 1
    assert await store.retention.end_old_uploads(now + LATER_S) == 1
    assert await store.retention.prune_use(now + LATER_S) == found.tallies
    assert await store.retention.prunable(now + LATER_S) == Prunable(0, 0, 0, 0, 0, 0)

    assert await store.intake.made_by("default", NamedRequest("ended", "hash")) is None
    made = await store.intake.made_by("default", NamedRequest("waiting", "hash"))
    assert made is not None and made.object_id == waiting
    assert (
        await store.intake.batch_made_before("default", "", named=NamedRequest(going, "hash"), repeated=False) == going
    )
    assert await store.files.view("default", unread) is None and await store.files.view("default", read) is not None
    assert [each.id for each in await store.files.expired()] == [unread]


async def test_nothing_younger_is_touched(store: Store) -> None:
    ended = await named_job(store, "ended")
    await run_all(store, await new_worker(store), [ended])
    await store.files.add(new_id("file"), "default", "in.jsonl", 3, 1)
    minute = int(await store.now() // ACCEPTED_PERIOD_S)
    await store.tenants.record_accepted("default", "api_1", {minute: 3})
    assert await store.retention.prunable(await store.now() - 60) == Prunable(0, 0, 0, 0, 0, 0)
    assert await store.retention.prune_use(await store.now() + LATER_S) == 0, "limits by the minute still ask for it"
