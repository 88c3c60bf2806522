"""What the planner sees: lanes, heads in their order, the next time."""

from ledger_help import CHAIN, filled_batch, new_jobs, new_worker, open_batch, put_back, run_all, singles

from models.chain import Chain, Step
from models.ids import new_id
from models.records import SINGLE, Lane, NewBatch
from models.state import Priority
from models.store import Store

OTHER = Chain(steps=(Step(provider="lead", model="small", params={"max_tokens": 5}),))


def lane_of(batch_id: str) -> Lane:
    return Lane(batch_id, "default", CHAIN.id, Priority.BULK)


async def test_only_lanes_whose_rows_may_start_are_seen(store: Store) -> None:
    going, _ = await open_batch(store, 1)
    held, _ = await open_batch(store, 1)
    cancelled, _ = await open_batch(store, 1)
    await filled_batch(store, 1)
    await singles(store, 1, priority=Priority.NORMAL, tenant="acme")
    await store.pause_batch(held, "wait")
    await store.cancel_batch(cancelled)

    assert set(await store.lanes()) == {lane_of(going), Lane(SINGLE, "acme", CHAIN.id, Priority.NORMAL)}


async def test_each_chain_of_a_batch_has_a_lane(store: Store) -> None:
    batch_id = new_id("batch")
    await store.create_batch(NewBatch(batch_id, expires_at=await store.now() + 60))
    await store.add_jobs(batch_id, await new_jobs(store, 2) + await new_jobs(store, 2, chain=OTHER))
    await store.open_batch(batch_id, 4)
    assert {each.chain_id for each in await store.lanes()} == {CHAIN.id, OTHER.id}
    assert await store.get_chain(OTHER.id) == OTHER


async def test_lanes_of_ended_batches_and_idle_lanes_of_single_jobs_are_forgotten(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    ids += await singles(store, 1)
    await singles(store, 1, tenant="busy")
    await run_all(store, await new_worker(store), ids)
    assert await store.close_batches() == [batch_id]
    assert await store.drop_idle_lanes() == 1
    assert [each.tenant for each in await store.lanes()] == ["busy"]


async def test_those_put_back_and_due_come_first_then_the_others_by_age(store: Store) -> None:
    batch_id, ids = await open_batch(store, 6)
    worker = await new_worker(store)
    now = await store.now()
    jobs = await store.start(worker, ids[:4])
    times = [now - 10, now - 20, now + 1000, 0.0]
    await store.settle(worker, [put_back(job, until) for job, until in zip(jobs, times, strict=True)])

    heads = await store.heads(lane_of(batch_id), 10)

    assert [head.id for head in heads] == [ids[1], ids[0], ids[3], ids[4], ids[5]]
    assert heads[0].tokens == 7
    assert [head.id for head in await store.heads(lane_of(batch_id), 3)] == [ids[1], ids[0], ids[3]]
    assert await store.next_due() == times[2]
    assert await store.queued_count(lane_of(batch_id), 100) == 6
    assert await store.queued_count(lane_of(batch_id), 4) == 4


async def test_nothing_is_due_when_nothing_was_put_back(store: Store) -> None:
    await singles(store, 1)
    assert await store.next_due() is None


async def test_jobs_past_their_deadline_are_no_heads(store: Store) -> None:
    now = await store.now()
    await singles(store, 1, expires_at=now - 1)
    (lane,) = await store.lanes()
    assert await store.heads(lane, 10) == []


async def test_tickets_of_ended_and_unknown_jobs_are_void(store: Store) -> None:
    batch_id, ids = await open_batch(store, 3)
    worker = await new_worker(store)
    await run_all(store, worker, ids[:1])
    await store.start(worker, ids[1:2])
    assert await store.existing([*ids, "job_unknown"]) == dict.fromkeys(ids[1:], lane_of(batch_id))
    assert await store.existing([]) == {}
