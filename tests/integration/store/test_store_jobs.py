"""The ledger's part in single jobs over HTTP: named requests, lists, times to live."""

import asyncio

import pytest
from ledger_help import CHAIN, new_jobs, new_worker, open_batch, put_back, run_all, singles

from understudy.models.ids import id_at, new_id
from understudy.models.jobs.submission import NewJob
from understudy.models.store import Store
from understudy.models.store.work.intake import NamedRequest, OtherRequest
from understudy.models.store.work.jobs import JobFilter

ALL = JobFilter()
DAY_S = 86_400.0


async def ids_of(store: Store, wanted: JobFilter = ALL, tenant: str = "default", after: str = "") -> list[str]:
    rows = await store.jobs.page(tenant, wanted, limit=100, after=after, ascending=True)
    return [row.id for row in rows]


async def test_a_named_request_makes_its_jobs_once(store: Store) -> None:
    named = NamedRequest("one", "hash")
    attempts = [await new_jobs(store, 2) for _ in range(20)]
    made = await asyncio.gather(*(store.intake.accept_jobs("default", jobs, named, "[]") for jobs in attempts))
    (first,) = [jobs for jobs, earlier in zip(attempts, made, strict=True) if earlier is None]
    assert {earlier.object_id for earlier in made if earlier} == {first[0].id}
    assert {earlier.answer for earlier in made if earlier} == {"[]"}
    assert await ids_of(store) == [job.id for job in first]
    found = await store.intake.made_by("default", named)
    assert found is not None and found.object_id == first[0].id


async def test_a_name_belongs_to_one_request_of_one_tenant(store: Store) -> None:
    await store.intake.accept_jobs("default", await new_jobs(store, 1), NamedRequest("one", "hash"))
    with pytest.raises(OtherRequest):
        await store.intake.accept_jobs("default", await new_jobs(store, 1), NamedRequest("one", "other"))
    with pytest.raises(OtherRequest):
        await store.intake.made_by("default", NamedRequest("one", "other"))
    assert len(await ids_of(store)) == 1
    assert await store.intake.made_by("theirs", NamedRequest("one", "hash")) is None
    assert (
        await store.intake.accept_jobs("theirs", await new_jobs(store, 1, tenant="theirs"), NamedRequest("one", "x"))
        is None
    )


async def test_a_time_to_live_begins_when_the_ledger_accepts(store: Store) -> None:
    job = NewJob(new_id("job"), "{}", CHAIN, "x", expires_in_s=60.0)
    await store.intake.accept_jobs("default", [job])
    view = await store.jobs.view(job.id)
    assert view is not None and view.expires_at - view.created_at == pytest.approx(60, abs=1e-3)


async def test_lists_keep_to_tenant_batch_state_provider_and_time(store: Store) -> None:
    batch, in_batch = await open_batch(store, 3)
    alone = await singles(store, 3)
    theirs = await singles(store, 2, tenant="theirs")
    worker = await new_worker(store)
    await run_all(store, worker, alone[:1])
    (job,) = await store.claims.start(worker, alone[1:2])
    await store.claims.settle(worker, [put_back(job, await store.now() + 60)])
    await store.claims.start(worker, in_batch[:1])
    now = await store.now()
    assert await ids_of(store) == in_batch + alone
    assert await ids_of(store, tenant="theirs") == theirs
    assert await ids_of(store, after=in_batch[2]) == alone
    assert await ids_of(store, JobFilter(batch_id=batch)) == in_batch
    assert await ids_of(store, JobFilter(state="scheduled")) == alone[1:2]
    assert await ids_of(store, JobFilter(state="queued")) == in_batch[1:] + alone[2:]
    assert await ids_of(store, JobFilter(state="running")) == in_batch[:1]
    assert await ids_of(store, JobFilter(state="succeeded", provider="lead")) == alone[:1]
    assert await ids_of(store, JobFilter(provider="other")) == []
    assert await ids_of(store, JobFilter(created_after=now - DAY_S, created_before=now + 1)) == in_batch + alone
    assert await ids_of(store, JobFilter(created_after=now + 1)) == []


async def test_another_tenants_job_is_not_seen(store: Store) -> None:
    (theirs,) = await singles(store, 1, tenant="theirs")
    assert await store.jobs.view(theirs, "default") is None
    assert await store.jobs.view(theirs, "theirs") is not None


def test_an_id_of_a_time_divides_the_ids_made_before_from_those_made_later() -> None:
    made = new_id("job")
    assert id_at("job", 1_700_000_000) < made < id_at("job", 4_000_000_000)
    assert id_at("job", -1) == "job_0000000000"
