"""Answers of any size are handed out in pages of bytes, and their length is known without reading them."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import orjson
import pytest
from api_help import application
from fakeredis import FakeAsyncRedis
from ledger_help import failed, new_worker, open_batch, outputs_of, part_pages, succeeded
from sqlalchemy import update

from understudy.models.config.settings import Settings
from understudy.models.jobs.execution import ResultRecord, Settled, StartedJob
from understudy.models.memory_room import Headroom
from understudy.models.state import JobState
from understudy.models.store import Store, paging
from understudy.models.store.sql import job, result
from understudy.producer.api.access import auth
from understudy.producer.api.access.auth import Caller, Scope
from understudy.producer.api.context import Context
from understudy.producer.api.files import spooled_answers as spooling
from understudy.producer.api.files.blobs import open_blobs
from understudy.producer.api.files.spooled_answers import Delivery
from understudy.producer.api.jobs import responses

MB = 1024 * 1024


@pytest.fixture
def context(store: Store, tmp_path: Path) -> Context:
    settings = Settings(data=tmp_path / "data")
    return Context(settings, store, FakeAsyncRedis(), lambda: 0.0, open_blobs(settings))


@pytest.fixture
async def http(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    with application(nullcontext(context)) as app:
        app.dependency_overrides = dict.fromkeys(
            (auth.reader, auth.submitter), lambda: Caller("default", frozenset(Scope))
        )
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
        ):
            yield client


def refused(job: StartedJob, words: str = "no") -> Settled:
    record = ResultRecord(400, orjson.dumps({"error": {"message": words}}).decode())
    return Settled(job.id, job.batch_id, job.claim_no, JobState.FAILED, [], record)


async def ended(store: Store, answers: list[str], *, failures: int = 0, left: int = 0) -> str:
    """A batch of these answers, of failures with our words and the provider's in turn, and of cancelled lines."""
    batch_id, ids = await open_batch(store, len(answers) + failures + left)
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids[: len(answers) + failures])
    good, bad = jobs[: len(answers)], jobs[len(answers) :]
    await store.claims.settle(worker, [succeeded(each, answer) for each, answer in zip(good, answers, strict=True)])
    await store.claims.settle(
        worker, [failed(each) if number % 2 else refused(each) for number, each in enumerate(bad)]
    )
    if left:
        await store.batch_lifecycle.cancel(batch_id)
        await store.batch_lifecycle.cancel_slice()
    await store.batch_lifecycle.close_finished()
    return batch_id


async def test_a_page_has_a_bounded_number_of_bytes_or_one_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1_000)
    answers = ["x" * size for size in (10, 400, 400, 400, 5_000, 10, 3_000, 3_000, 990, 10)]
    batch_id = await ended(store, answers)
    pages = [[len(row.body or "") for row in page] async for page in part_pages(store, batch_id, "output")]
    assert [len(page) for page in pages] == [3, 1, 1, 1, 1, 1, 1, 1]
    assert all(sum(page) <= 1_000 or len(page) == 1 for page in pages)
    assert [orjson.loads(row.body or "")["answer"] for row in await outputs_of(store, batch_id)] == answers


async def test_rows_of_an_older_version_are_weighed_when_they_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1_000)
    batch_id = await ended(store, ["é" * 400, "é" * 400, "x"])
    async with store._db.write() as connection:
        await connection.execute(update(job).values(answer_bytes=None))
    assert [len(page) async for page in part_pages(store, batch_id, "output")] == [1, 2]


async def test_the_lines_that_a_limit_allows_come_in_one_answer_however_large_they_are(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 100_000)
    monkeypatch.setattr(spooling, "PIECE_BYTES", 10_000)
    batch_id = await ended(store, ["é" * size for size in (0, 30_000, 200_000, 40_000, 5)], failures=2)
    all_lines = (await http.get(f"/v1/batches/{batch_id}/results")).content
    rows = await outputs_of(store, batch_id)
    assert [orjson.loads(line)["response"] is None for line in all_lines.splitlines()] == [False] * 6 + [True]
    assert [orjson.loads(line)["id"] for line in all_lines.splitlines()] == [f"batch_req_{row.job_id}" for row in rows]
    read, after = b"", ""
    while True:
        page = await http.get(f"/v1/batches/{batch_id}/results", params={"limit": 2, "after": after})
        assert len(page.content.splitlines()) <= 2
        read += page.content
        if not (after := page.headers.get("understudy-next-after", "")):
            break
    assert read == all_lines


@pytest.mark.parametrize("part", ["output", "error"])
async def test_a_length_that_was_worked_out_is_that_of_the_content(
    http: httpx.AsyncClient, store: Store, part: str
) -> None:
    batch_id = await ended(store, ["yes", "é" * 1_000, "😀"], failures=5, left=2)
    async with store._db.write() as connection:
        await connection.execute(update(job).where(job.c.line == 2).values(custom_id='"\\ é \u0007 <&'))
        await connection.execute(update(job).where(job.c.line.in_((1, 4, 5))).values(answer_bytes=None))
    name = f"/v1/files/file_{batch_id}_{part}"
    told = (await http.get(name)).json()["bytes"]
    content = await http.get(f"{name}/content")
    assert told == len(content.content) == int(content.headers["content-length"])
    assert (await http.get(name)).json()["bytes"] == told
    assert {each["id"]: each["bytes"] for each in (await http.get("/v1/files")).json()["data"]}[name[10:]] == told


async def test_a_list_of_files_reads_no_answer(http: httpx.AsyncClient, store: Store) -> None:
    batch_id = await ended(store, ["x" * 1_000] * 3)
    async with store._db.write() as connection:
        await connection.execute(update(result).values(body="{}"))
    (shown,) = [each for each in (await http.get("/v1/files")).json()["data"] if each["id"].endswith("_output")]
    assert shown["bytes"] > 3_000 and batch_id in shown["id"]


async def test_forgotten_answers_are_as_long_as_what_is_left(http: httpx.AsyncClient, store: Store) -> None:
    batch_id = await ended(store, ["x" * 1_000] * 3)
    await store.outputs.forget_part(batch_id, "output")
    name = f"/v1/files/file_{batch_id}_output"
    assert (await http.get(name)).json()["bytes"] == len((await http.get(f"{name}/content")).content)


async def test_a_large_answer_to_a_job_is_the_whole_answer(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (spooling, responses):
        monkeypatch.setattr(module, "PIECE_BYTES", 1_000)
    batch_id = await ended(store, ["é" * 10_000, "yes"])
    for row in await outputs_of(store, batch_id):
        answer = await http.get(f"/v1/jobs/{row.job_id}/result")
        assert answer.text == row.body and answer.headers["content-length"] == str(len(answer.content))


async def test_who_does_not_take_its_answers_holds_no_memory_for_others(context: Context) -> None:
    """Each has read its first piece and asks for no more."""
    context.headroom = Headroom(MB)

    async def page() -> list[bytes]:
        return [b"x" * MB, b"y" * MB]

    slow = [Delivery(context, "acme").pieces(page, 2 * MB) for _ in range(5)]
    firsts = [await anext(each) for each in slow]
    assert {len(each) for each in firsts} == {spooling.PIECE_BYTES}
    rest = [b"".join([each async for each in one]) for one in slow]
    assert all(first + more == b"x" * MB + b"y" * MB for first, more in zip(firsts, rest, strict=True))


async def test_a_full_disk_loses_no_answer(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def page() -> list[bytes]:
        return [b"x" * MB, b"y"]

    monkeypatch.setattr(spooling, "overflow_file", full)
    assert b"".join([each async for each in Delivery(context, "acme").pieces(page, MB)]) == b"x" * MB + b"y"
