"""Files over HTTP: through OpenAI's SDK, as streamed uploads, and as invalid uploads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx
import openai
import orjson
import pytest
from api_help import application
from fakeredis import FakeAsyncRedis
from fastapi import FastAPI
from ledger_help import failed, new_worker, open_batch, succeeded
from sqlalchemy import func, select, update

from understudy.models.cancellation import running
from understudy.models.config.settings import ApiSettings, Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.store import Store
from understudy.models.store.sql import file, job_input, result
from understudy.producer.api.access import auth
from understudy.producer.api.access.auth import Caller, Scope
from understudy.producer.api.context import Context
from understudy.producer.api.files.blobs import Blobs, StorageDown, open_blobs, remove_expired, sweep_files
from understudy.producer.runs.output import output_line

LIMIT = 100_000
LINES = b'{"custom_id":"a"}\n\n{"custom_id":"b"}\n  \r\n{"custom_id":"c"}'
TYPE = "multipart/form-data; boundary=edge"


@pytest.fixture
def context(store: Store, tmp_path: Path) -> Context:
    settings = Settings(data=tmp_path, api=ApiSettings(max_file_bytes=LIMIT))
    return Context(settings, store, FakeAsyncRedis(), lambda: 0.0, open_blobs(settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
async def http(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    with application(nullcontext(context)) as app:
        app.dependency_overrides = dict.fromkeys((auth.reader, auth.submitter), _caller)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://127.0.0.1"
            ) as client,
        ):
            yield client


async def _caller(tenant: str = "default") -> Caller:
    """The tenant is what `?tenant=` says."""
    return Caller(tenant, frozenset(Scope))


@pytest.fixture
def sdk(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="x", http_client=http, max_retries=0)  # type: ignore[arg-type]


def part(name: str, value: bytes, filename: bytes | None = None) -> bytes:
    named = b"" if filename is None else b'; filename="' + filename + b'"'
    return (
        b'--edge\r\nContent-Disposition: form-data; name="'
        + name.encode()
        + b'"'
        + named
        + b"\r\n\r\n"
        + value
        + b"\r\n"
    )


PURPOSE = part("purpose", b"batch")
FILE = part("file", LINES, b"in.jsonl")
END = b"--edge--\r\n"


async def posted(http: httpx.AsyncClient, content: bytes | AsyncIterator[bytes], kind: str = TYPE) -> httpx.Response:
    return await http.post("/v1/files", content=content, headers={"content-type": kind})


async def rows_of(store: Store) -> int:
    async with store._db.read() as connection:
        return (await connection.execute(select(func.count()).select_from(file))).scalar_one()


async def ended_batch(store: Store, good: int = 2, bad: int = 1) -> tuple[str, list[str]]:
    batch_id, ids = await open_batch(store, good + bad)
    worker = await new_worker(store)
    jobs = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [succeeded(job) for job in jobs[:good]] + [failed(job) for job in jobs[good:]])
    await store.batch_lifecycle.close_finished()
    return batch_id, ids


async def test_the_sdk_uploads_looks_at_downloads_and_deletes_a_file(
    sdk: openai.AsyncOpenAI, context: Context, folder: Path
) -> None:
    made = await sdk.files.create(
        file=("in é.jsonl", LINES), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(LINES), "in é.jsonl", "batch", "processed")
    assert made.expires_at == made.created_at + 3600
    record = await context.store.files.view("default", made.id)
    assert record is not None and record.lines == 3
    assert await sdk.files.retrieve(made.id) == made
    assert (await sdk.files.content(made.id)).content == LINES
    deleted = await sdk.files.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "file", True)
    for gone in (sdk.files.retrieve(made.id), sdk.files.content(made.id), sdk.files.delete(made.id)):
        with pytest.raises(openai.NotFoundError):
            await gone
    assert await remove_expired(context.store, context.blobs) == 1
    assert not list(folder.iterdir()) and not await rows_of(context.store)


async def test_the_sdk_pages_through_all_files_newest_or_oldest_first(sdk: openai.AsyncOpenAI) -> None:
    ids = [(await sdk.files.create(file=(f"{n}.jsonl", LINES), purpose="batch")).id for n in range(7)]
    assert [each.id async for each in sdk.files.list(limit=3)] == ids[::-1]
    assert [each.id async for each in sdk.files.list(limit=3, order="asc")] == ids
    assert [each.id async for each in sdk.files.list(limit=3, purpose="batch_output")] == []
    page = await sdk.files.list(limit=7)
    assert not page.has_more and page.last_id == ids[0]


async def test_a_list_goes_on_although_what_it_showed_was_deleted(sdk: openai.AsyncOpenAI, context: Context) -> None:
    for n in range(5):
        await sdk.files.create(file=(f"{n}.jsonl", LINES), purpose="batch")
    await ended_batch(context.store)
    seen = 0
    async for each in sdk.files.list(limit=2):
        await sdk.files.delete(each.id)
        await remove_expired(context.store, context.blobs)
        seen += 1
    assert seen == 7
    assert (await sdk.files.list()).data == []


async def test_a_batch_s_output_and_error_file_hold_every_line_and_know_their_length(
    sdk: openai.AsyncOpenAI, store: Store
) -> None:
    batch_id, _ = await ended_batch(store, good=2, bad=1)
    rows = [row async for row in store.outputs.of_batch(batch_id)]
    for name, count in (("output", 2), ("error", 1)):
        content = (await sdk.files.content(f"file_{batch_id}_{name}")).content
        lines = [orjson.loads(line) for line in content.splitlines()]
        assert lines == [output_line(row) for row in rows if (row.state == "succeeded") == (name == "output")]
        assert len(lines) == count
        seen = await sdk.files.retrieve(f"file_{batch_id}_{name}")
        assert (seen.bytes, seen.purpose) == (len(content), "batch_output")
    listed = (await sdk.files.list(purpose="batch_output")).data
    assert {each.id for each in listed} == {f"file_{batch_id}_{name}" for name in ("output", "error")}


async def test_the_length_of_an_output_is_measured_once_and_then_declared(
    http: httpx.AsyncClient, store: Store
) -> None:
    batch_id, _ = await ended_batch(store)
    first = await http.get(f"/v1/files/file_{batch_id}_output/content")
    assert "content-length" not in first.headers
    second = await http.get(f"/v1/files/file_{batch_id}_output/content")
    assert second.headers["content-length"] == str(len(first.content)) and second.content == first.content


async def test_deleting_an_output_removes_prompts_and_answers_of_that_part_and_no_counts(
    sdk: openai.AsyncOpenAI, context: Context
) -> None:
    store = context.store
    batch_id, ids = await ended_batch(store, good=2, bad=1)
    before = await store.batches.view(batch_id)
    await sdk.files.delete(f"file_{batch_id}_output")
    with pytest.raises(openai.NotFoundError):
        await sdk.files.content(f"file_{batch_id}_output")
    await remove_expired(context.store, context.blobs)
    async with store._db.read() as connection:
        inputs = (await connection.execute(select(job_input.c.job_id))).scalars().all()
        answers = (await connection.execute(select(result.c.body).where(result.c.body.is_not(None)))).all()
    assert inputs == [ids[-1]] and answers == []
    after = await store.batches.view(batch_id)
    assert before is not None and after is not None
    assert (after.counts, after.cost_usd) == (before.counts, before.cost_usd)
    assert (await sdk.files.content(f"file_{batch_id}_error")).content.count(b"\n") == 1


async def test_a_file_that_a_validating_batch_has_to_read_is_not_deleted(
    sdk: openai.AsyncOpenAI, context: Context
) -> None:
    made = await sdk.files.create(file=("a.jsonl", LINES), purpose="batch")
    batch_id = new_id("batch")
    await context.store.intake.create_batch(NewBatch(batch_id, input_file_id=made.id, expires_at=2e9))
    with pytest.raises(openai.ConflictError, match="is being read by a batch"):
        await sdk.files.delete(made.id)
    await context.store.intake.open_batch(batch_id, 0)
    await sdk.files.delete(made.id)


async def test_another_tenant_s_files_do_not_exist(http: httpx.AsyncClient, sdk: openai.AsyncOpenAI) -> None:
    made = await sdk.files.create(file=("a.jsonl", LINES), purpose="batch")
    path = f"/v1/files/{made.id}"
    for method, url in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path)):
        assert (await http.request(method, url, params={"tenant": "other"})).status_code == 404
    assert (await http.get("/v1/files", params={"tenant": "other"})).json()["data"] == []
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("body", [PURPOSE + FILE + END, FILE + PURPOSE + END], ids=["purpose first", "file first"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_body_is_read_however_it_is_cut_and_ordered(http: httpx.AsyncClient, body: bytes, size: int) -> None:
    async def cut() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    answer = await posted(http, cut())
    assert answer.status_code == 200, answer.text
    assert (await http.get(f"/v1/files/{answer.json()['id']}/content")).content == LINES


LONG_NAME = part("file", LINES, b"x" * 10_000)

WRONG: dict[str, tuple[bytes, str, int, str]] = {
    "a body of no type": (FILE, "", 415, "must be multipart/form-data"),
    "JSON": (b"{}", "application/json", 415, "not application/json"),
    "no boundary": (PURPOSE + FILE + END, "multipart/form-data", 400, "has no boundary"),
    "an empty boundary": (PURPOSE + FILE + END, "multipart/form-data; boundary=", 400, "has no boundary"),
    "a boundary too long": (FILE, "multipart/form-data; boundary=" + "x" * 5000, 400, "boundary is too long"),
    "another boundary": (PURPOSE + FILE + END, "multipart/form-data; boundary=other", 400, "are not separated"),
    "a cut body": (PURPOSE + FILE, TYPE, 400, "ends before its last boundary"),
    "a body cut within the file": ((PURPOSE + FILE)[:-20], TYPE, 400, "ends before its last boundary"),
    "no body": (b"", TYPE, 400, "ends before its last boundary"),
    "no part": (END, TYPE, 400, ""),
    "no file": (PURPOSE + END, TYPE, 400, "'file' is missing"),
    "a file without a name": (PURPOSE + part("file", LINES) + END, TYPE, 400, "send it with a filename"),
    "two files": (PURPOSE + FILE + FILE + END, TYPE, 400, "'file' occurs twice"),
    "a file that is not 'file'": (PURPOSE + part("data", LINES, b"a") + END, TYPE, 400, "only 'file' may be a file"),
    "an empty file": (PURPOSE + part("file", b"", b"a") + END, TYPE, 400, "the file is empty"),
    "no purpose": (FILE + END, TYPE, 400, "'purpose' is missing"),
    "two purposes": (PURPOSE + PURPOSE + FILE + END, TYPE, 400, "'purpose' occurs twice"),
    "another purpose": (part("purpose", b"user_data") + FILE + END, TYPE, 400, "'user_data'; only 'batch'"),
    "another purpose after the file": (FILE + part("purpose", b"vision") + END, TYPE, 400, "'vision'; only"),
    "an unknown field": (PURPOSE + part("expire", b"1") + FILE + END, TYPE, 400, "'expire' is not a field"),
    "a long field": (part("purpose", b"x" * 5000) + FILE + END, TYPE, 400, "longer than 256 bytes"),
    "half of expires_after": (
        PURPOSE + part("expires_after[seconds]", b"3600") + FILE + END, TYPE, 400, "[anchor]' is missing"),
    "expires_after of no number": (
        PURPOSE + part("expires_after[seconds]", b"1e5") + FILE + END, TYPE, 400, "must be a whole number"),
    "another anchor": (PURPOSE + part("expires_after[anchor]", b"now") + FILE + END, TYPE, 400, "'created_at'"),
    "a name of 10,000 characters": (PURPOSE + LONG_NAME + END, TYPE, 400, "longer than 255 characters"),
    "a header without end": (b"--edge\r\nContent-Disposition: " + b"x" * 60_000, TYPE, 400, "are not separated"),
    "too large a file": (PURPOSE + part("file", b"x" * (LIMIT + 1), b"a") + END, TYPE, 413, "100,000 bytes"),
    "too large a body": (PURPOSE + part("file", b"x" * LIMIT * 5, b"a") + END, TYPE, 413, "longer than 100,000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(("body", "kind", "status", "words"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_upload_is_refused_in_one_sentence_and_leaves_nothing(
    http: httpx.AsyncClient, store: Store, folder: Path, body: bytes, kind: str, status: int, words: str, chunked: bool
) -> None:
    async def cut() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 5_000):
            yield body[start : start + 5_000]

    answer = await posted(http, cut() if chunked else body, kind)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert not list(folder.iterdir()) and not await rows_of(store)


NAMES: list[tuple[bytes, str]] = [
    (b"../../etc/passwd", "passwd"),
    (b"C:\\\\temp\\\\in.jsonl", "in.jsonl"),
    (b"a\x00b\x1b[31m.jsonl", "ab[31m.jsonl"),
    (b"\xff\xfe.jsonl", "\ufffd\ufffd.jsonl"),
    ("ключ.jsonl".encode(), "ключ.jsonl"),
    (b"", "file"),
    (b"..", ".."),
]


@pytest.mark.parametrize(("given", "kept"), NAMES)
async def test_a_hostile_name_is_only_a_name(http: httpx.AsyncClient, folder: Path, given: bytes, kept: str) -> None:
    answer = await posted(http, PURPOSE + part("file", LINES, given) + END)
    if answer.status_code == 400:  # a header cannot contain NUL
        assert b"\x00" in given and "are not separated" in answer.json()["error"]["message"]
        return
    assert answer.json()["filename"] == kept
    assert [each.name for each in folder.iterdir()] == [answer.json()["id"]]


async def test_an_upload_whose_sender_goes_away_leaves_nothing(
    http: httpx.AsyncClient, store: Store, folder: Path
) -> None:
    app = http._transport.app  # type: ignore[attr-defined]
    sent = await broken_off(app, PURPOSE + FILE)
    assert sent == 400
    assert not list(folder.iterdir()) and not await rows_of(store)


async def broken_off(app: FastAPI, begun: bytes) -> int:
    """The status of an upload whose connection ends after this many bytes."""
    messages: Iterator[dict[str, object]] = iter(
        [{"type": "http.request", "body": begun, "more_body": True}, {"type": "http.disconnect"}]
    )
    seen: list[int] = []

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: dict[str, object]) -> None:
        if "status" in message:
            seen.append(int(str(message["status"])))

    headers = [(b"content-type", TYPE.encode()), (b"content-length", b"999")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/files", "raw_path": b"/v1/files", "query_string": b"",
        "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    return seen[0]


async def test_storage_that_is_away_is_told_as_503_and_leaves_no_row(
    http: httpx.AsyncClient, context: Context, folder: Path
) -> None:
    folder.rmdir()
    folder.write_text("in the way")
    answer = await posted(http, PURPOSE + FILE + END)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) <= 120
    assert str(folder) in answer.json()["error"]["message"]
    assert not await rows_of(context.store)


async def test_a_row_that_cannot_be_written_leaves_no_bytes(
    http: httpx.AsyncClient, context: Context, folder: Path
) -> None:
    async with context.store._db.write() as connection:
        await connection.exec_driver_sql("ALTER TABLE file RENAME TO away")
    try:
        answer = await posted(http, PURPOSE + FILE + END)
    finally:
        async with context.store._db.write() as connection:
            await connection.exec_driver_sql("ALTER TABLE away RENAME TO file")
    assert answer.status_code == 503
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=nothing", "'after' is not the id of a file"),
        ("after=%00", "'after' is not the id of a file"),
    ],
)
async def test_a_wrong_page_is_refused_by_name(http: httpx.AsyncClient, query: str, words: str) -> None:
    answer = await http.get(f"/v1/files?{query}")
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["nothing", "%00", "x" * 3000, "%ff", "..%2f..%2fledger.db"])
async def test_an_unknown_file_is_404(http: httpx.AsyncClient, name: str) -> None:
    assert (await http.get(f"/v1/files/{name}")).status_code == 404
    assert (await http.delete(f"/v1/files/{name}")).status_code == 404


async def test_expired_files_are_gone_and_removed(sdk: openai.AsyncOpenAI, context: Context, folder: Path) -> None:
    made = await sdk.files.create(
        file=("a", LINES), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert await remove_expired(context.store, context.blobs) == 0
    async with context.store._db.write() as connection:
        await connection.execute(update(file).values(expires_at=1.0))
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(made.id)
    assert await remove_expired(context.store, context.blobs) == 1
    assert not list(folder.iterdir())


async def test_a_deleted_file_is_removed_in_the_background(
    context: Context, sdk: openai.AsyncOpenAI, folder: Path
) -> None:
    async with running(sweep_files(context), name="sweep-files"):
        made = await sdk.files.create(file=("a", LINES), purpose="batch")
        await sdk.files.delete(made.id)
        await until(lambda: not list(folder.iterdir()))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_an_object_store_serves_as_well(http: httpx.AsyncClient, context: Context) -> None:
    context.blobs = open_blobs(Settings(files_url="memory:///"))
    answer = await posted(http, PURPOSE + FILE + END)
    path = f"/v1/files/{answer.json()['id']}"
    assert (await http.get(f"{path}/content")).content == LINES
    await http.delete(path)
    await remove_expired(context.store, context.blobs)
    assert await rows_of(context.store) == 0
    assert isinstance(context.blobs, Blobs)


async def test_a_removal_that_broke_off_is_taken_up_again(
    sdk: openai.AsyncOpenAI, context: Context, folder: Path
) -> None:
    made = await sdk.files.create(file=("a", LINES), purpose="batch")
    await sdk.files.delete(made.id)
    kept, context.blobs = context.blobs, open_blobs(Settings(data=folder / "elsewhere"))
    (folder / "elsewhere" / "files").rmdir()
    (folder / "elsewhere" / "files").write_text("in the way")
    with pytest.raises(StorageDown):
        await remove_expired(context.store, context.blobs)
    assert await rows_of(context.store) == 1
    context.blobs = kept
    assert await remove_expired(context.store, context.blobs) == 1
    assert not (folder / made.id).exists()


async def test_several_processes_may_remove_the_same_files(sdk: openai.AsyncOpenAI, context: Context) -> None:
    batch_id, _ = await ended_batch(context.store, good=5, bad=5)
    for part_name in ("output", "error"):
        await sdk.files.delete(f"file_{batch_id}_{part_name}")
    for _ in range(4):
        made = await sdk.files.create(file=("a", LINES), purpose="batch")
        await sdk.files.delete(made.id)
    await asyncio.gather(*(remove_expired(context.store, context.blobs) for _ in range(3)))
    assert await rows_of(context.store) == 0
