"""What the planner sees: lanes, and heads in order; and what it says about waiting batches."""

from itertools import product

import pytest
from ledger_help import CHAIN, filled_batch, new_jobs, new_worker, open_batch, put_back, singles
from sqlalchemy import update

from understudy.models.ids import new_id
from understudy.models.jobs.submission import SINGLE, NewBatch
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store import Store, ledger
from understudy.models.store.sql import batch
from understudy.models.store.work import batches, planning
from understudy.models.store.work.planning import Lane, OpenLane
from understudy.models.tenants import TenantLimits

OTHER = Chain(steps=(Step(provider="lead", model="small", params={"max_tokens": 5}),))


def lane_of(batch_id: str) -> Lane:
    return Lane(batch_id, "default", CHAIN.id, Priority.BULK)


async def test_only_lanes_whose_rows_may_start_are_seen(store: Store) -> None:
    going, _ = await open_batch(store, 1)
    held, _ = await open_batch(store, 1)
    cancelled, _ = await open_batch(store, 1)
    await filled_batch(store, 1)
    await singles(store, 1, priority=Priority.NORMAL, tenant="acme")
    await store.batch_lifecycle.pause(held, "wait")
    await store.batch_lifecycle.cancel(cancelled)

    assert set(await store.planning.lanes()) == {lane_of(going), Lane(SINGLE, "acme", CHAIN.id, Priority.NORMAL)}


async def test_each_chain_of_a_batch_has_a_lane(store: Store) -> None:
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, expires_at=await store.now() + 60))
    await store.intake.add_jobs(batch_id, await new_jobs(store, 2) + await new_jobs(store, 2, chain=OTHER))
    await store.intake.open_batch(batch_id, 4)
    assert {each.chain_id for each in await store.planning.lanes()} == {CHAIN.id, OTHER.id}
    assert await store.get_chain(OTHER.id) == OTHER


def written(number: int, size: int = 10) -> Chain:
    """A chain into whose step a caller wrote a text of this size."""
    params = {"max_tokens": 5, "stream": True, "prediction": "x" * size, "tools": [{"number": number}]}
    return Chain(steps=(Step(provider="lead", model="small", params=params),), patience_s=float(number))


async def test_plans_know_many_chains_without_what_callers_wrote_into_their_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "READ_AT_ONCE", 3)
    chains = [written(number, size) for number, size in enumerate([10] * 8 + [2 * planning.SMALL_CHAIN_BYTES])]
    for each in chains:
        await store.intake.accept_jobs("default", await new_jobs(store, 1, chain=each))
    known = await store.planning.chains([*(each.id for each in chains), "chn_gone"])
    assert {each.patience_s for each in known.values()} == {float(number) for number in range(9)}
    assert [each.steps[0].params for each in known.values()] == [{"max_tokens": 5, "stream": True}] * 9
    assert known.keys() == {each.id for each in chains}


async def test_long_chains_are_kept_in_memory_up_to_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CHAIN_BYTES_KEPT", 10_000)
    chains = [written(number, size) for number, size in enumerate([3_000] * 9 + [20_000])]
    for each in chains:
        await store.intake.accept_jobs("default", await new_jobs(store, 1, chain=each))
    for each in chains * 2:
        assert await store.get_chain(each.id) == each
        assert sum(len(kept.model_dump_json()) for kept in store._ledger._chains.values()) <= 10_000


async def test_a_lane_is_there_while_it_has_queued_jobs(store: Store) -> None:
    _, ids = await open_batch(store, 1)
    ids += await singles(store, 1)
    await singles(store, 1, tenant="busy")
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    assert [each.tenant for each in await store.planning.lanes()] == ["busy"]
    await store.claims.settle(worker, [put_back(job, 0.0) for job in jobs])
    assert len(await store.planning.lanes()) == 3


async def test_the_lanes_between_many_jobs_are_all_found(store: Store) -> None:
    """Lanes that differ in only one column, whichever it is, with others' jobs in between."""
    expected: set[Lane] = set()
    for tenant, priority, chain in product(("a", "b"), Priority, (CHAIN, OTHER)):
        await store.intake.accept_jobs(
            "default", await new_jobs(store, 3, tenant=tenant, priority=priority, chain=chain)
        )
        expected.add(Lane(SINGLE, tenant, chain.id, priority))
    for number in range(3):
        batch_id, _ = await open_batch(store, 2)
        if number == 1:
            await store.batch_lifecycle.pause(batch_id, "wait")
        else:
            expected.add(lane_of(batch_id))
    found = await store.planning.lanes()
    assert len(found) == len(expected)
    assert set(found) == expected


async def test_those_put_back_and_due_come_first_then_the_others_by_age(store: Store) -> None:
    batch_id, ids = await open_batch(store, 6)
    worker = await new_worker(store)
    now = await store.now()
    jobs = await store.claims.start(worker, ids[:4])
    times = [now - 10, now - 20, now + 1000, 0.0]
    await store.claims.settle(worker, [put_back(job, until) for job, until in zip(jobs, times, strict=True)])

    heads = await store.planning.heads(lane_of(batch_id), 10)

    assert [head.id for head in heads] == [ids[1], ids[0], ids[3], ids[4], ids[5]]
    assert heads[0].tokens == 7
    assert [head.id for head in await store.planning.heads(lane_of(batch_id), 3)] == [ids[1], ids[0], ids[3]]


async def test_jobs_past_their_deadline_are_not_heads(store: Store) -> None:
    now = await store.now()
    await singles(store, 1, expires_at=now - 1)
    (lane,) = await store.planning.lanes()
    assert await store.planning.heads(lane, 10) == []


async def test_ready_lanes_tell_how_many_are_due_and_what_share_they_have(store: Store) -> None:
    batch_id, ids = await open_batch(store, 5, weight=3.0)
    _, idle_ids = await open_batch(store, 1)
    held, _ = await open_batch(store, 1)
    await store.batch_lifecycle.pause(held, "wait")
    await store.tenants.set_limits(TenantLimits("acme", weight=0.5), actor="test")
    await singles(store, 2, priority=Priority.NORMAL, tenant="acme")
    worker, now = await new_worker(store), await store.now()
    started = {job.id: job for job in await store.claims.start(worker, [*ids[:2], *idle_ids])}
    await store.claims.settle(worker, [put_back(started[ids[0]], now + 1000), put_back(started[ids[1]], now - 1)])

    seen = await store.planning.ready_lanes(3)

    assert seen == [
        OpenLane(Lane(SINGLE, "acme", CHAIN.id, Priority.NORMAL), 2, 1.0, 0.5),
        OpenLane(lane_of(batch_id), 3, 3.0, 1.0),
    ]
    assert [each.ready for each in await store.planning.ready_lanes(100)] == [2, 4]


async def test_what_batches_wait_for_is_seen_while_it_is_fresh(store: Store) -> None:
    (one, _), (other, _) = await open_batch(store, 1), await open_batch(store, 1)
    what = Waiting("tokens per minute are used up at lead/large", "tokens", "lead", "large", "lead:main", 99.5)
    await store.planning.say_waiting({one: what, other: what})
    await store.planning.say_waiting({other: None})
    assert [await waiting_of(store, each) for each in (one, other)] == [what, None]
    await store.batch_lifecycle.pause(one, "by hand")
    assert await waiting_of(store, one) is None
    await store.batch_lifecycle.resume(one)
    assert await waiting_of(store, one) == what
    async with store._db.write() as connection:
        await connection.execute(update(batch).values(waiting_at=batch.c.waiting_at - 11))
    assert await waiting_of(store, one) is None


async def test_a_batch_of_which_more_jobs_were_put_back_than_are_looked_at_says_why(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WAITS_OF_BATCH", batches.WAITS_OF_BATCH.limit(3))
    monkeypatch.setattr(batches, "WAITS_SAMPLE", 3)
    batch_id, ids = await open_batch(store, 5)
    await store.canary.stop_watching([batch_id])
    worker, later = await new_worker(store), await store.now() + 100
    put = [put_back(job, later, "the provider rests") for job in await store.claims.start(worker, ids[:2])]
    await store.claims.settle(worker, put)
    assert await waiting_of(store, batch_id) is None, "three others may start"
    await store.claims.settle(
        worker, [put_back(job, later, "the provider rests") for job in await store.claims.start(worker, ids)]
    )
    assert await waiting_of(store, batch_id) == Waiting("the provider rests", "put_back", until=later)


async def waiting_of(store: Store, batch_id: str) -> Waiting | None:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view.waiting
