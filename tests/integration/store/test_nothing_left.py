"""Every column that can hold words of a caller or a provider is emptied with its job's content, or is listed in KEPT.

A new text column has to be added to one of the two. What is planted here represents everything that may be stored
there.
"""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from ledger_help import HOUR_S, new_worker, succeeded
from sqlalchemy import Table, Text, func, literal, select, update
from test_forgetting import canaries, everything, forget

from understudy.models import disabled as setaside
from understudy.models.disabled import ALL_MODELS
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import JobState
from understudy.models.store import LEDGER_FILE, Store, open_store
from understudy.models.store.chains import insert_chains
from understudy.models.store.sql import (
    chain,
    credential,
    idempotency,
    job,
    plain_type,
    run,
    run_line,
    webhook_delivery,
)
from understudy.models.store.work.intake import NamedRequest
from understudy.models.tables import Job
from understudy.models.tenants import TenantLimits

MARK = "canary-of-anybody"

KEPT = {
    # of a job: which it was, how it ended, when, by whom, and what its caller calls it
    "job": "id batch_id tenant custom_id chain_id state worker_id callback_url note",
    "result": "job_id batch_id provider model key failure step",
    "attempt": "id job_id batch_id tenant provider model key failure",
    "batch": (
        "id tenant state endpoint source identity retry_of note input_file_id completion_window callback_url "
        "request_hash filled_by pause_kind"
    ),
    "tally": "batch_id worker_id kind provider model outcome",
    "run": "id",
    "run_line": "run_id name request chain_id job_id again_id ask",
    "job_input": "job_id",
    "chain": "id",
    "idempotency": "tenant key body_hash object_id",
    "webhook_delivery": "id tenant endpoint_id url receiver event object_id state claimed_by last_error log",
    "credential": "provider key model failure fingerprint job_id",
    "file": "id tenant purpose filename batch_id part",
    # of administrators, not of requests
    "tenant": "*",
    "tenant_tally": "*",
    "provider_tally": "*",
    "budget_grant": "*",
    "api_key": "*",
    "webhook_secret": "*",
    "webhook_endpoint": "*",
    "audit": "*",
    "worker": "*",
    "lane": "*",
}

CONTENT = {
    "job_input": "body extra",
    "result": "body error",
    "attempt": "message",
    "job": "progress waiting",
    "batch": "paused blocked error options waiting",
    "run_line": "extra",
    "chain": "document",
    "idempotency": "answer",
    "webhook_delivery": "data",
    "credential": "reason",
}


def texts(table: Table) -> set[str]:
    return {each.name for each in table.columns if plain_type(each).python_type is str}


@pytest.mark.parametrize("table", Job.metadata.tables.values(), ids=str)
def test_every_text_of_a_table_is_forgotten_or_kept_for_a_reason(table: Table) -> None:
    if KEPT.get(table.name) != "*":
        kept, content = KEPT.get(table.name, "").split(), CONTENT.get(table.name, "").split()
        assert sorted(texts(table)) == sorted([*kept, *content])


def overridden(mark: str) -> Chain:
    """A caller's fallbacks: whatever it writes into a step is asked of the model."""
    params = {"tools": [{"type": "function", "function": {"name": mark}}], "prediction": {"content": mark}}
    steps = (Step(provider="lead", model="large", params=params), Step(provider="other", model="small"))
    return Chain(steps=steps, require={"region": (mark,)})


async def ended_work(store: Store) -> tuple[str, list[str], str]:
    """A batch and a single job, both ended, with everything that a table can hold about them."""
    chain_, expires_at = overridden(MARK), await store.now() + HOUR_S
    batch_id, ids, alone = new_id("batch"), [new_id("job"), new_id("job")], new_id("job")
    await store.intake.create_batch(
        NewBatch(batch_id, expires_at=expires_at, input_file_id="file_1", callback_url="https://r.example")
    )
    await store.intake.add_jobs(batch_id, [NewJob(each, "{}", chain_, each, expires_at=expires_at) for each in ids])
    await store.intake.open_batch(batch_id, len(ids))
    await store.batch_lifecycle.pause(batch_id, MARK)
    await store.batch_lifecycle.resume(batch_id)
    said = {"index": 1, "id": None, "custom_id": None, "error": {"message": MARK, "param": MARK, "code": "bad_value"}}
    answer = {"object": "list", "data": [{"index": 0, "id": alone, "custom_id": "c", "error": None}, said]}
    job_alone = NewJob(alone, "{}", chain_, "one", expires_at=expires_at)
    await store.intake.accept_jobs("default", [job_alone], NamedRequest("name", "hash"), json.dumps(answer))
    await store.intake.accept_jobs("default", [], NamedRequest("in vain", "hash"), json.dumps({"data": [said]}))
    worker = await new_worker(store)
    await store.claims.settle(worker, [succeeded(each) for each in await store.claims.start(worker, [*ids, alone])])
    await store.batch_lifecycle.close_finished()
    await store.credentials.set_aside("lead", "main", ALL_MODELS, FailureClass.CREDENTIAL, MARK, job_id=alone)
    await plant(store)
    return batch_id, ids, alone


async def plant(store: Store) -> None:
    """The mark in every column of CONTENT that can hold any text."""
    structured = {"chain", "idempotency", "webhook_delivery"}
    async with store._db.write() as connection:
        for name, columns in CONTENT.items():
            table = Job.metadata.tables[name]
            values = dict.fromkeys(columns.split(), literal(json.dumps([MARK]), Text))
            if name not in structured:
                await connection.execute(update(table).values(values))
        # every receiver has its webhook, so the work counts as delivered
        await connection.execute(update(webhook_delivery).values(state="delivered", data=json.dumps({"reason": MARK})))


async def test_nothing_is_left_of_what_was_delivered(store: Store, tmp_path: Path) -> None:
    batch_id, ids, alone = await ended_work(store)
    assert await store.content.acknowledge("batch", "default", batch_id)
    assert await store.content.acknowledge("job", "default", alone)
    assert MARK in await everything(store)
    await forget(store)
    rows = await everything(store)
    left = rows[max(rows.find(MARK) - 400, 0) : rows.find(MARK) + 60]
    assert MARK not in rows, left
    async with store._db.read() as connection:
        reasons = (await connection.execute(select(credential.c.reason))).scalars().all()
        answers = (await connection.execute(select(idempotency.c.answer).where(idempotency.c.key == "name"))).scalars()
        [answer] = [json.loads(each or "") for each in answers.all()]
    assert reasons == [setaside.FORGOTTEN]
    made, refused = answer["data"]
    assert (made["id"], refused["error"]["code"]) == (alone, "bad_value"), "the same request again makes nothing new"
    assert [json.loads(each)["id"] for each in await told(store)] == [batch_id] * len(await told(store))
    for job_id in (*ids, alone):
        view = await store.jobs.view(job_id)
        assert view is not None and view.state is JobState.SUCCEEDED
        steps = (await store.get_chain(view.chain_id)).steps
        assert [str(step) for step in steps] == ["lead/large", "other/small"]
    in_files = [path.name for path in tmp_path.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()]
    assert in_files == [], "the write-ahead log as well as the file"


async def told(store: Store) -> list[str]:
    async with store._db.read() as connection:
        asked = select(webhook_delivery.c.data).where(webhook_delivery.c.data.is_not(None))
        return [str(each) for each in (await connection.execute(asked)).scalars()]


async def test_nothing_is_left_of_what_was_pruned(store: Store, tmp_path: Path) -> None:
    await ended_work(store)
    before = await store.now() + 1
    await store.retention.prune(before)
    await store.retention.prune_names(before)
    await store.webhooks.prune_deliveries(await store.now() + 1)
    async with store._db.write() as connection:
        await connection.execute(update(webhook_delivery).values(ended_at=1.0))
    await store.webhooks.prune_deliveries(before)
    await store.content.clear_up(pruned=True)
    assert MARK not in await everything(store)
    async with store._db.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(chain))).scalar_one() == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(("at_work", "asked", "left"), [(False, False, 0), (True, False, 2), (False, True, 2)])
async def test_lines_of_a_run_that_were_compared_and_never_asked_go_with_what_is_pruned(
    store: Store, at_work: bool, asked: bool, left: int
) -> None:
    now = await store.now()
    async with store._db.write() as connection:
        await connection.execute(run.insert().values(id="run_1", version=1, taken_until=now + 600 if at_work else 0.0))
        for position in (1, 2):
            words = {"name": "n", "named": True, "request": "r", "chain_id": "c", "extra": MARK}
            job_id = "job_1" if asked and position == 2 else None
            line = {"run_id": "run_1", "version": 1, "position": position, "line": position, "job_id": job_id, **words}
            await connection.execute(run_line.insert().values(line))
    await store.retention.prune(now)
    async with store._db.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(run_line))).scalar_one() == left


async def test_what_others_have_still_to_ask_keeps_its_chain(store: Store) -> None:
    batch_id, *_ = await ended_work(store)
    later = new_id("job")
    await store.intake.accept_jobs(
        "default", [NewJob(later, "{}", overridden(MARK), "later", expires_at=await store.now() + HOUR_S)]
    )
    await store.content.acknowledge("batch", "default", batch_id)
    await forget(store)
    worker = await new_worker(store)
    [started] = await store.claims.start(worker, [later])
    store._ledger._chains.clear()
    assert await store.get_chain(started.chain_id) == overridden(MARK)


async def test_rejected_named_requests_stay_where_content_is_kept(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("keeper", store_content="always"), actor="a test")
    said = json.dumps({"data": [{"error": {"message": MARK, "param": None}}]})
    await store.intake.accept_jobs("keeper", [], NamedRequest("a", "hash"), said)
    await forget(store)
    assert MARK in await everything(store)
    assert await canaries(store) == []


async def test_a_chain_is_never_taken_from_a_job_that_is_just_being_accepted(
    store: Store, ledger_url: str | None, tmp_path: Path
) -> None:
    """One process accepts and deletes jobs of one chain repeatedly, while another deletes chains without jobs."""
    done = asyncio.Event()

    async def sweep() -> None:
        async with open_store(ledger_url, tmp_path) as other:
            while not done.is_set():
                await other.content.clear_up(pruned=True)
                await asyncio.sleep(0)

    async def accept() -> None:
        expires_at = await store.now() + HOUR_S
        for _ in range(40):
            await asyncio.gather(
                *(
                    store.intake.accept_jobs("default", [NewJob(new_id("job"), "{}", one, "c", expires_at=expires_at)])
                    for one in (overridden("a"), overridden("a"), overridden("b"))
                )
            )
            async with store._db.write() as connection:
                orphans = select(job.c.id).where(job.c.chain_id.not_in(select(chain.c.id)))
                assert (await connection.execute(orphans)).all() == []
                await connection.execute(job.delete())

    sweeping = asyncio.create_task(sweep())
    try:
        await accept()
    finally:
        done.set()
        await sweeping


@pytest.mark.servers
@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
async def test_a_chain_that_is_being_given_to_a_job_is_passed_over(store: Store) -> None:
    """SQLite has one writer at a time."""
    expires_at = await store.now() + HOUR_S
    first = NewJob(new_id("job"), "{}", overridden("a"), "c", expires_at=expires_at)
    await store.intake.accept_jobs("default", [first])
    async with store._db.write() as connection:
        await connection.execute(job.delete())
    async with store._db.write() as connection:
        await insert_chains(connection, [first], 1.0)
        await store.content.clear_up(pruned=True)
        assert (await connection.execute(select(func.count()).select_from(chain))).scalar_one() == 1
    await store.content.clear_up(pruned=True)
    async with store._db.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(chain))).scalar_one() == 0


async def test_who_reads_for_long_keeps_only_the_log_and_the_next_time_empties_it(
    empty_ledger: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_ledger, tmp_path)
    log = tmp_path / f"{LEDGER_FILE}-wal"
    async with open_store(None, tmp_path) as store:
        await store.intake.accept_jobs("default", [NewJob(new_id("job"), "{}", overridden("a"), "c", expires_at=9e9)])
        async with store._db.read() as reading:
            await reading.execute(select(job.c.id))
            await store.intake.accept_jobs(
                "default", [NewJob(new_id("job"), "{}", overridden("b"), "c", expires_at=9e9)]
            )
            await store.content.clear_up(pruned=True)
            assert log.stat().st_size > 0
        await store.content.clear_up()
        assert log.stat().st_size == 0
        async with store._db.write() as connection:
            assert (await connection.exec_driver_sql("PRAGMA secure_delete")).scalar_one() == 1
