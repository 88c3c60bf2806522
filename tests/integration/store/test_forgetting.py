"""Content that is kept only until it is delivered: after that, no table holds a word of it."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_help import Served, bearer, key_for, served
from ledger_help import CHAIN, HOUR_S, call, new_worker, request_of, singles, state_of, succeeded
from sqlalchemy import select, update

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.execution import ResultRecord, Settled, StartedJob
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.jobs.wait_reasons import put_back_for
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.models.store.sql import file, job
from understudy.models.tables import Job
from understudy.models.tenants import CONTENT_KEPT_S, TenantLimits
from understudy.models.webhook_events import DEAD, DELIVERED, PENDING, Tried
from understudy.producer.api.files.blobs import NoBlob, remove_expired

PROMPT, ANSWER, WORDS = "canary-of-the-prompt", "canary-of-the-answer", "canary-of-the-provider"
CANARIES = (PROMPT, ANSWER, WORDS)
BODY = f'{{"messages":[{{"role":"user","content":"{PROMPT}"}}]}}'


async def everything(store: Store) -> str:
    """All rows of all tables."""
    async with store._db.read() as connection:
        tables = [await connection.execute(select(table)) for table in Job.metadata.tables.values()]
        return repr([tuple(row) for rows in tables for row in rows])


async def canaries(store: Store) -> list[str]:
    rows = await everything(store)
    return [each for each in CANARIES if each in rows]


def answered(of: StartedJob) -> Settled:
    outcome = succeeded(of, ANSWER)
    return replace(outcome, attempts=[call(of, FailureClass.SERVER, message=WORDS), *outcome.attempts])


def refused(of: StartedJob) -> Settled:
    result = ResultRecord(None, None, {"code": "server", "message": WORDS})
    return Settled(of.id, of.batch_id, of.claim_no, JobState.FAILED, [call(of, FailureClass.SERVER)], result)


async def ended_batch(store: Store, tenant: str = "default", **fields: Any) -> tuple[str, list[str]]:
    """A batch of three lines: one answered, one failed, one cancelled after it was put back with a provider's words."""
    batch_id, expires_at = new_id("batch"), await store.now() + HOUR_S
    await store.intake.create_batch(NewBatch(batch_id, tenant=tenant, expires_at=expires_at, **fields))
    ids = [new_id("job") for _ in range(3)]
    jobs = [
        NewJob(each, BODY, CHAIN, each, line, tenant=tenant, expires_at=expires_at, extra=f'{{"a":"{PROMPT}"}}')
        for line, each in enumerate(ids)
    ]
    await store.intake.add_jobs(batch_id, jobs)
    await store.intake.open_batch(batch_id, 3)
    worker = await new_worker(store)
    first, second, third = await store.claims.start(worker, ids)
    back = Settled(
        third.id, batch_id, third.claim_no, JobState.QUEUED, progress={"error": WORDS}, waiting=put_back_for(WORDS)
    )
    await store.claims.settle(worker, [answered(first), refused(second), back])
    await store.batch_lifecycle.cancel(batch_id)
    while await store.batch_lifecycle.cancel_slice():
        continue
    await store.batch_lifecycle.close_finished()
    return batch_id, ids


async def ended_job(store: Store, tenant: str = "default", **fields: Any) -> str:
    job_id, expires_at = new_id("job"), await store.now() + HOUR_S
    await store.intake.accept_jobs(
        "default", [NewJob(job_id, BODY, CHAIN, "one", tenant=tenant, expires_at=expires_at, **fields)]
    )
    worker = await new_worker(store)
    await store.claims.settle(worker, [answered(each) for each in await store.claims.start(worker, [job_id])])
    return job_id


async def forget(store: Store) -> int:
    """As if everything marked had been delivered long ago."""
    looked_at = 0
    while found := await store.content.forget_delivered("until_delivered", since_s=-1):
        looked_at += found
    return looked_at


async def test_no_table_holds_a_word_of_what_was_delivered(store: Store) -> None:
    batch_id, ids = await ended_batch(store)
    job_id = await ended_job(store)
    assert await canaries(store) == list(CANARIES)
    assert await forget(store) == 0 and await canaries(store) == list(CANARIES)  # no one has it yet
    assert await store.content.acknowledge("batch", "default", batch_id)
    assert await store.content.acknowledge("job", "default", job_id)
    assert await store.content.forget_delivered("until_delivered", CONTENT_KEPT_S) == 0
    assert await canaries(store) == list(CANARIES)  # it can be fetched again for a while
    assert await forget(store) == 2
    assert await canaries(store) == []
    view = await store.batches.view(batch_id)
    assert view is not None
    counts = {state: count for state, count in view.counts.items() if count}
    assert counts == {JobState.SUCCEEDED: 1, JobState.FAILED: 1, JobState.CANCELLED: 1}
    assert view.cost_usd > 0 and view.output_file_id is None
    calls = await store.jobs.attempts(job_id=ids[0])
    assert {each["failure"] for each in calls} == {None, "server"}
    assert await forget(store) == 0


async def test_what_is_another_tenants_stays_and_what_was_not_delivered(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("other", store_content="always"), actor="a test")
    theirs = [await ended_batch(store, "other"), await ended_batch(store)]
    mine, my_ids = await ended_batch(store)
    await store.content.acknowledge("batch", "other", theirs[0][0])
    await store.content.acknowledge("batch", "default", mine)
    await forget(store)
    for each in my_ids:
        assert await request_of(store, each) is None
    for _, ids in theirs:
        for each in ids:
            assert await request_of(store, each) == BODY
    kept = await store.jobs.view(theirs[0][1][0])
    assert kept is not None and kept.calls is not None and kept.calls[0]["message"] == WORDS
    assert ANSWER in (await store.jobs.answer(kept.id) or "")


async def test_a_tenant_may_want_its_content_forgotten_where_others_keep_it(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("private", queued_jobs=7), actor="a test")
    await store.tenants.set_store_content("private", "until_delivered", actor="a test")
    assert (await store.tenants.use("private", time.time())).limits == TenantLimits(
        "private", queued_jobs=7, store_content="until_delivered"
    )
    theirs, ours = await ended_batch(store, "private"), await ended_batch(store)
    for tenant, (batch_id, _) in (("private", theirs), ("default", ours)):
        assert await store.content.acknowledge("batch", tenant, batch_id)
    assert await store.content.forget_delivered("always", since_s=-1) == 2
    assert [await request_of(store, ids[0]) for _, ids in (theirs, ours)] == [None, BODY]


async def test_only_the_owner_acknowledges_and_only_what_has_ended(store: Store) -> None:
    batch_id, _ = await ended_batch(store)
    (waiting,) = await singles(store, 1)
    assert not await store.content.acknowledge("batch", "other", batch_id)
    assert not await store.content.acknowledge("job", "default", waiting)
    assert await forget(store) == 0


@pytest.mark.parametrize(("state", "forgotten"), [(DELIVERED, True), (DEAD, False), (PENDING, False)])
@pytest.mark.parametrize("kind", ["job", "batch"])
async def test_a_webhook_that_was_taken_is_a_delivery(store: Store, kind: str, state: str, forgotten: bool) -> None:
    url = "https://hooks.example.com/x"
    if kind == "job":
        await ended_job(store, callback_url=url)
    else:
        await ended_batch(store, callback_url=url)
    (delivery,), _ = await store.deliveries.claim("w", 9, 9, 60)
    await store.deliveries.finish("w", [Tried(delivery, state, status=200)])
    await forget(store)
    assert await canaries(store) == ([] if forgotten else list(CANARIES))


async def test_content_stays_while_another_receiver_has_still_to_be_told(store: Store) -> None:
    await store.webhooks.add_endpoint("default", "https://other.example.com/x", ["*"], actor="a test")
    job_id = await ended_job(store, callback_url="https://hooks.example.com/x")
    first, second = (await store.deliveries.claim("w", 9, 9, 60))[0]
    await store.deliveries.finish("w", [Tried(first, DELIVERED, status=200)])
    assert await forget(store) == 0
    await store.deliveries.finish("w", [Tried(second, DEAD, status=500)])
    assert await forget(store) == 1
    assert await state_of(store, job_id) is JobState.SUCCEEDED and await store.jobs.answer(job_id) is None


@pytest.mark.parametrize(("part", "forgotten"), [("output", True), ("error", False)])
async def test_who_deletes_the_output_file_has_it(store: Store, part: str, forgotten: bool) -> None:
    batch_id, _ = await ended_batch(store)
    assert await store.files.delete("default", f"file_{batch_id}_{part}")
    await forget(store)
    assert (await canaries(store) == []) is forgotten


async def test_an_upload_goes_when_no_batch_holds_its_prompts_any_more(store: Store) -> None:
    upload = await store.files.add(new_id("file"), "default", "in.jsonl", 10, 3)
    batches = [(await ended_batch(store, input_file_id=upload.id))[0] for _ in range(2)]
    await store.content.acknowledge("batch", "default", batches[0])
    await forget(store)
    assert await store.files.view("default", upload.id) is not None
    await store.content.acknowledge("batch", "default", batches[1])
    await forget(store)
    assert await store.files.view("default", upload.id) is None
    assert upload.id in [each.id for each in await store.files.expired()]


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(store, time.time, Settings(data=tmp_path, store_content="until_delivered")) as opened:
        yield opened


async def test_over_http_an_acknowledged_result_is_gone_for_good_an_hour_later(store: Store, api: Served) -> None:
    job_id = await ended_job(store)
    headers = bearer(await key_for(store, Scope.SUBMIT, Scope.READ))
    async with api.client() as client:
        client.headers.update(headers)
        assert (await client.get(f"/v1/jobs/{job_id}/result")).status_code == 200
        acknowledged = await client.post(f"/v1/jobs/{job_id}/ack")
        assert (acknowledged.status_code, acknowledged.json()["id"]) == (200, job_id)
        await forget(store)
        gone = await client.get(f"/v1/jobs/{job_id}/result")
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "result_pruned")
        assert gone.headers["X-Should-Retry"] == "false"
        assert (await client.post(f"/v1/jobs/{job_id}/ack")).status_code == 200


async def test_over_http_what_has_not_ended_cannot_be_acknowledged(store: Store, api: Served) -> None:
    (waiting,) = await singles(store, 1)
    batch_id, ids = await ended_batch(store)
    async with api.client() as client:
        client.headers.update(bearer(await key_for(store, Scope.SUBMIT, Scope.READ)))
        early = await client.post(f"/v1/jobs/{waiting}/ack")
        assert (early.status_code, early.json()["error"]["code"]) == (409, "not_ended")
        line = await client.post(f"/v1/jobs/{ids[0]}/ack")
        assert (line.status_code, line.json()["error"]["code"]) == (409, "of_a_batch")
        done = await client.post(f"/v1/batches/{batch_id}/ack")
        assert (done.status_code, done.json()["id"]) == (200, batch_id)
        await forget(store)
        failed = await client.get(f"/v1/jobs/{ids[1]}/result")
        assert failed.status_code == 502 and WORDS not in failed.text


async def test_the_bytes_of_a_forgotten_upload_are_removed(store: Store, api: Served) -> None:
    async def bytes_of_input() -> AsyncIterator[bytes]:
        yield PROMPT.encode()

    upload = new_id("file")
    await api.context.blobs.put(upload, bytes_of_input())
    await store.files.add(upload, "default", "in.jsonl", 10, 3)
    batch_id, _ = await ended_batch(store, input_file_id=upload)
    await store.content.acknowledge("batch", "default", batch_id)
    await forget(store)
    async with store._db.write() as connection:  # so that neither clock needs to be ahead of the other
        await connection.execute(update(file).where(file.c.expires_at.is_not(None)).values(expires_at=1.0))
    assert await remove_expired(api.context.store, api.context.blobs) == 3
    with pytest.raises(NoBlob):
        [each async for each in api.context.blobs.read(upload)]


async def test_an_administrator_says_how_long_the_content_of_his_tenant_is_kept(store: Store, api: Served) -> None:
    await store.tenants.set_limits(TenantLimits("acme", queued_jobs=9), actor="a test")
    key = await key_for(store, Scope.ADMIN, tenant="acme")
    async with api.client() as client:
        client.headers.update(bearer(key))
        seen = (await client.get("/v1/tenant")).json()
        assert (seen["store_content"], seen["queued_jobs"]) == ("until_delivered", 9)
        for said, shown in (("always", "always"), (None, "until_delivered")):
            changed = await client.patch("/v1/tenant", json={"store_content": said})
            assert (changed.status_code, changed.json()) == (200, {**seen, "store_content": shown})
        wrong = await client.patch("/v1/tenant", json={"queued_jobs": 10_000})
        assert wrong.status_code == 400


async def test_marks_do_not_pile_up_where_everything_is_kept(store: Store) -> None:
    job_id = await ended_job(store)
    await store.content.acknowledge("job", "default", job_id)
    assert await store.content.forget_delivered("always", since_s=-1) == 1
    async with store._db.read() as connection:
        marks = (await connection.execute(select(job.c.delivered_at).where(job.c.delivered_at.is_not(None)))).all()
    assert marks == [] and ANSWER in await canaries(store)
