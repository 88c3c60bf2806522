"""Files in the ledger: order, tenants, ends, and what is removed with them."""

import pytest
from ledger_help import failed, new_worker, open_batch, part_pages, succeeded
from sqlalchemy import func, select, update

from understudy.models.ids import new_id, time_of
from understudy.models.jobs.submission import NewBatch
from understudy.models.store import Store, StoreConflict
from understudy.models.store.sql import attempt, file, job, job_input, result
from understudy.models.store.work import outputs

BOTH = ("batch", "batch_output")


async def added(store: Store, tenant: str = "default", lives_s: float | None = None) -> str:
    return (await store.files.add(new_id("file"), tenant, "a\0.jsonl", 10, 2, lives_s)).id


async def listed(store: Store, limit: int = 100, after: str | None = None, ascending: bool = False) -> list[str] | None:
    found = await store.files.page("default", BOTH, limit, after, ascending)
    return None if found is None else [each.id for each in found]


async def ended_batch(store: Store, good: int, bad: int) -> tuple[str, list[str]]:
    batch_id, ids = await open_batch(store, good + bad)
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [succeeded(job) for job in jobs[:good]] + [failed(job) for job in jobs[good:]])
    await store.batch_lifecycle.close_finished()
    return batch_id, ids


async def end_now(store: Store, file_id: str) -> None:
    async with store._db.write() as connection:
        await connection.execute(update(file).where(file.c.id == file_id).values(expires_at=1.0))


async def test_a_file_is_seen_as_it_was_added_by_its_tenant_only(store: Store) -> None:
    made = await store.files.add(new_id("file"), "mine", "a\0.jsonl", 3 * 2**31, 2, 3600)
    assert await store.files.view("mine", made.id) == made
    assert (made.filename, made.bytes, made.lines) == ("a.jsonl", 3 * 2**31, 2)
    assert (made.created_at, made.expires_at) == (time_of(made.id), time_of(made.id) + 3600)
    assert await store.files.view("default", made.id) is None
    assert await store.files.page("default", BOTH, 10) == []
    assert not await store.files.delete("default", made.id)


async def test_files_are_listed_by_time_in_both_directions_and_by_purpose(store: Store) -> None:
    first = await added(store)
    batch_id, _ = await ended_batch(store, 1, 1)
    outputs = [f"file_{batch_id}_error", f"file_{batch_id}_output"]
    last = await added(store)
    async with store._db.write() as connection:  # the ledger's clock and the ids' need not agree to the millisecond
        at = (time_of(first) + time_of(last)) / 2
        await connection.execute(update(file).where(file.c.batch_id == batch_id).values(created_at=at))
    assert await listed(store, ascending=True) == [first, *outputs, last]
    assert await listed(store) == [last, *outputs[::-1], first]
    assert await listed(store, 2, after=last) == outputs[::-1]
    assert await listed(store, 2, after=outputs[0]) == [first]
    only = await store.files.page("default", ("batch_output",), 10)
    assert only is not None and [each.id for each in only] == outputs[::-1]


async def test_a_page_goes_on_after_a_file_that_is_gone_and_not_after_what_is_none(store: Store) -> None:
    ids = [await added(store) for _ in range(4)]
    await store.files.delete("default", ids[1])
    assert await listed(store, after=ids[1], ascending=True) == ids[2:]
    await store.files.drop(ids[1])
    assert await listed(store, after=ids[1], ascending=True) == ids[2:]
    assert await listed(store, after=ids[2]) == ids[:1]
    for nothing in ("", "file_", "file_batch_1_output", "file_" + "u" * 26):
        assert await listed(store, after=nothing) is None


async def test_a_deleted_file_is_gone_at_once_and_waits_to_be_removed(store: Store) -> None:
    kept, gone = await added(store), await added(store)
    assert await store.files.delete("default", gone)
    assert not await store.files.delete("default", gone)
    assert await store.files.view("default", gone) is None
    assert await listed(store) == [kept]
    assert [each.id for each in await store.files.expired()] == [gone]
    await store.files.drop(gone)
    assert await store.files.expired() == []


async def test_a_file_lives_as_long_as_it_was_to(store: Store) -> None:
    kept, gone = await added(store, lives_s=3600), await added(store, lives_s=3600)
    await end_now(store, gone)
    assert await listed(store) == [kept]
    assert [each.id for each in await store.files.expired()] == [gone]


async def test_a_file_that_a_batch_has_still_to_read_neither_is_deleted_nor_removed(store: Store) -> None:
    made = await added(store)
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, input_file_id=made, expires_at=2e9))
    with pytest.raises(StoreConflict, match="wait until it is validated"):
        await store.files.delete("default", made)
    await end_now(store, made)
    assert await store.files.expired() == []
    await store.retention.discard_batch(batch_id)
    assert [each.id for each in await store.files.expired()] == [made]


async def test_a_part_is_read_page_by_page_and_holds_its_own_jobs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "PART_PAGE", outputs.PART_PAGE.limit(2))
    batch_id, ids = await ended_batch(store, 5, 3)
    pages = [page async for page in part_pages(store, batch_id, "output")]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [row.job_id for page in pages for row in page] == ids[:5]
    errors = [row async for page in part_pages(store, batch_id, "error") for row in page]
    assert [row.job_id for row in errors] == ids[5:]
    assert {row.job_id: row.error for row in errors} == {
        row.job_id: row.error async for row in store.outputs.of_batch(batch_id) if row.job_id in ids[5:]
    }


@pytest.mark.parametrize(("part", "kept"), [("output", slice(5, 8)), ("error", slice(0, 5))])
async def test_forgetting_a_part_takes_its_prompts_and_answers_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, part: str, kept: slice
) -> None:
    monkeypatch.setattr(outputs, "PART_IDS", outputs.PART_IDS.limit(2))
    batch_id, ids = await ended_batch(store, 5, 3)
    before = await store.batches.view(batch_id)
    await store.outputs.forget_part(batch_id, part)
    async with store._db.read() as connection:
        inputs = (await connection.execute(select(job_input.c.job_id).order_by(job_input.c.job_id))).scalars().all()
        told = select(result.c.job_id).where(result.c.body.is_not(None) | result.c.error.is_not(None))
        answers = (await connection.execute(told.order_by(result.c.job_id))).scalars().all()
        counts = [
            (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (job, result, attempt)
        ]
    assert inputs == answers == ids[kept]
    assert counts == [8, 8, 8]
    assert await store.batches.view(batch_id) == before


async def test_the_length_of_an_output_is_kept(store: Store) -> None:
    batch_id, _ = await ended_batch(store, 1, 0)
    name = f"file_{batch_id}_output"
    seen = await store.files.view("default", name)
    assert seen is not None and seen.bytes is None
    await store.files.set_bytes(name, 3 * 2**31)
    seen = await store.files.view("default", name)
    assert seen is not None and seen.bytes == 3 * 2**31


async def test_a_pruned_batch_takes_its_files_along(store: Store) -> None:
    await ended_batch(store, 1, 1)
    await store.retention.prune(before=2e10)
    assert await listed(store) == []
