"""Batches over HTTP, from the request until they are filled: in process, on real ledgers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import orjson
import pytest
from ledger_help import failed, new_worker, part_pages, succeeded
from pydantic import TypeAdapter
from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.objects.batch import BatchObject
from understudy.models.routing.chain import CHAT
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import JobState
from understudy.models.store import Store, StoreFull
from understudy.producer.api.app import create_app
from understudy.producer.api.batches.routes import NEXT_AFTER
from understudy.producer.api.context import Context
from understudy.producer.api.files.blobs import Blobs
from understudy.producer.ingest.batch_filler import SLICE, Filler
from understudy.producer.ingest.batch_lines import BatchReader

PIECE_BYTES = 50_000
PRICES = {name: {"input": 1.0, "output": 2.0} for name in ("large", "small", "m")}
SETTINGS = Settings.model_validate(
    {
        "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "prices": PRICES}},
        "chains": {"careful": {"steps": ["lead/large", "lead/small"]}},
        "api": {"max_batch_lines": 5_000},
    }
)


class Api:
    """The API in this process, and a filler that works on demand."""

    def __init__(self, context: Context, http: httpx.AsyncClient) -> None:
        self.context = context
        self.store = context.store
        self.http = http
        self.filler = Filler(SETTINGS, self.store, self.read_in_pieces, "filler")

    async def read_in_pieces(self, file_id: str) -> AsyncIterator[bytes]:
        async for chunk in self.context.blobs.read(file_id):
            for start in range(0, len(chunk), PIECE_BYTES):
                yield chunk[start : start + PIECE_BYTES]

    async def upload(self, content: bytes, lines: int | None = None, **words: Any) -> str:
        file_id = new_id("file")

        async def chunks() -> AsyncIterator[bytes]:
            yield content or b"\n"

        size, counted = await self.context.blobs.put(file_id, chunks())
        await self.store.files.add(file_id, "default", "in.jsonl", size, counted if lines is None else lines, **words)
        return file_id

    async def post(self, path: str, document: Any = None, **headers: str) -> httpx.Response:
        return await self.http.post(path, json=document, headers=headers)

    async def create(self, content: bytes = b"", **words: Any) -> httpx.Response:
        file_id = words.pop("input_file_id", None) or await self.upload(content)
        headers = words.pop("headers", {})
        request = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **words}
        given = {key: value for key, value in request.items() if value is not ...}
        return await self.post("/v1/batches", given, **headers)

    async def created(self, content: bytes = b"", **words: Any) -> str:
        response = await self.create(content, **words)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    async def fill(self) -> None:
        while await self.filler.step():
            continue

    async def batch(self, batch_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/batches/{batch_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def jobs(self, batch_id: str) -> list[str]:
        return [job.id async for job in self.store.reruns.unfinished(batch_id)]


@pytest.fixture
async def api(store: Store, redis_server: str) -> AsyncIterator[Api]:
    async with Redis.from_url(redis_server) as redis:
        context = Context(SETTINGS, store, redis, time.time, Blobs())
        app = create_app(_no_lifespan())
        app.state.context = context
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield Api(context, http)


def _no_lifespan() -> Any:
    """The transport starts no lifespan, so the tests decide when to fill."""


def line(number: int, **words: Any) -> bytes:
    body = {"model": "lead/large", "messages": [{"role": "user", "content": f"prompt {number}"}]}
    document = {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body, **words}
    return orjson.dumps(document) + b"\n"


def lines(numbers: Iterable[int]) -> bytes:
    return b"".join(line(number) for number in numbers)


async def test_a_batch_is_answered_at_once_and_opened_when_its_lines_are_there(api: Api) -> None:
    response = await api.create(
        lines(range(3)),
        completion_window="90m",
        metadata={"project": "poems"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
        chain="careful",
        priority="normal",
        webhook_url="https://example.com/hook",
        weight=2.5,
    )
    batch = response.json()
    absent = {
        "errors", "output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "completed_at", "failed_at",
        "expired_at", "cancelling_at", "cancelled_at",
    }  # fmt: skip
    assert response.status_code == 200
    assert {name for name, value in batch.items() if value is None} == absent
    assert batch["object"] == "batch" and batch["status"] == "validating" and batch["endpoint"] == CHAT
    assert batch["expires_at"] - batch["created_at"] == pytest.approx(5_400, abs=1)
    assert all(isinstance(batch[name], int) for name in ("created_at", "expires_at"))
    assert batch["metadata"] == {"project": "poems"} and batch["completion_window"] == "90m"
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert batch["usage"]["input_tokens_details"] == {"cached_tokens": 0}
    assert batch["model"] == "careful" and batch["understudy"]["priority"] == "normal"
    assert batch["understudy"]["weight"] == 2.5
    await api.fill()
    batch = await api.batch(batch["id"])
    assert (batch["status"], batch["request_counts"]["total"]) == ("in_progress", 3)
    assert isinstance(batch["in_progress_at"], int)
    [job, *_] = await api.jobs(batch["id"])
    view = await api.store.jobs.view(job)
    assert view is not None and view.expires_at == pytest.approx(batch["expires_at"], abs=1)
    chain = await api.store.get_chain(view.chain_id)
    assert [str(step) for step in chain.steps] == ["lead/large", "lead/small"]


@pytest.mark.parametrize(
    ("words", "param", "said"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint", "/v1/responses"),
        ({"endpoint": "/v1/completions"}, "endpoint", "/v1/completions"),
        ({"endpoint": ...}, "endpoint", "required"),
        ({"completion_window": "8d"}, "completion_window", "7d"),
        ({"completion_window": "59s"}, "completion_window", "1m"),
        ({"completion_window": "tomorrow"}, "completion_window", "24h"),
        ({"completion_window": 24}, "completion_window", "string"),
        ({"budget_usd": 0}, "budget_usd", "greater than 0"),
        ({"fallback": ["lead/small"]}, "fallback", "did you mean 'fallbacks'"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "16"),
        ({"metadata": {"k" * 65: "x"}}, None, "64"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k", "512"),
        ({"metadata": {"k": 1}}, "metadata.k", "string"),
        ({"metadata": {"k": "a\0b"}}, None, "NUL"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, "output_expires_after.seconds", "3600"),
        ({"output_expires_after": {"anchor": "later", "seconds": 3600}}, "output_expires_after.anchor", "created_at"),
        ({"chain": "carefull"}, "chain", "did you mean 'careful'"),
        ({"model": "nobody/large"}, "model", "nobody"),
        ({"fallbacks": ["nobody/large"]}, "fallbacks[0]", "nobody"),
        ({"priority": "urgent"}, "priority", "interactive"),
        ({"weight": 0}, "weight", "greater than or equal to 0.01"),
        ({"weight": 1000}, "weight", "less than or equal to 100"),
        ({"weight": "heavy"}, "weight", "number"),
        ({"webhook_url": "ftp://example.com"}, "webhook_url", "http"),
        ({"webhook_url": "https://"}, "webhook_url", "http"),
        ({"patience_s": -1}, "patience_s", "0"),
        ({"input_file_id": 7}, "input_file_id", "string"),
    ],
)
async def test_a_request_that_is_wrong_is_refused_by_the_name_of_the_field(
    api: Api, words: dict[str, Any], param: str | None, said: str
) -> None:
    file_id = await api.upload(line(1))
    response = await api.create(**{"input_file_id": file_id, **words})
    error = response.json()["error"]
    assert (response.status_code, set(error)) == (400, {"message", "type", "param", "code"})
    assert said in error["message"]
    assert param is None or error["param"] == param
    assert (await api.http.get("/v1/batches")).json()["data"] == []


async def test_a_file_that_is_not_there_or_too_long_is_refused_at_once(api: Api) -> None:
    absent = await api.create(input_file_id="file_absent")
    assert (absent.status_code, absent.json()["error"]["param"]) == (404, "input_file_id")
    long = await api.create(input_file_id=await api.upload(line(1), lines=5_001))
    assert (long.status_code, long.json()["error"]["code"]) == (400, "too_many_lines")


async def test_a_bad_file_fails_the_batch_with_errors_by_line_and_leaves_no_rows(api: Api) -> None:
    count = 2 * SLICE  # more than one piece, so that slices are written before the bad line is read
    bad = b"not json\n" + line(3) + line(count, url="/v1/embeddings")
    content = lines(range(count)) + bad
    batch_id = await api.created(content)
    assert await api.filler.step()
    assert await api.jobs(batch_id)
    await api.fill()
    batch = await api.batch(batch_id)
    assert batch["status"] == "failed" and isinstance(batch["failed_at"], int)
    assert batch["errors"]["object"] == "list"
    assert [(error["code"], error["line"], error["param"]) for error in batch["errors"]["data"]] == [
        ("invalid_json_line", count + 1, None),
        ("duplicate_custom_id", count + 2, "custom_id"),
        ("invalid_url", count + 3, "url"),
    ]
    assert await api.jobs(batch_id) == []
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert not await api.filler.step()


async def test_a_file_that_does_not_fit_on_the_disk_fails_the_batch_and_leaves_no_rows(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_fill, calls = api.store.filling.fill, 0

    async def until_it_is_full(*words: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StoreFull("the disk is full")
        return await really_fill(*words)

    monkeypatch.setattr(api.store.filling, "fill", until_it_is_full)
    batch_id = await api.created(lines(range(2 * SLICE)))
    assert await api.filler.step()
    assert await api.jobs(batch_id)
    await api.fill()
    batch = await api.batch(batch_id)
    assert batch["status"] == "failed"
    assert [error["code"] for error in batch["errors"]["data"]] == ["no_room"]
    assert await api.jobs(batch_id) == []


async def test_a_batch_that_fails_is_told_to_its_webhook(api: Api) -> None:
    batch_id = await api.created(b"{", webhook_url="https://example.com/hook")
    await api.fill()
    told = await api.store.webhooks.deliveries("default", object_id=batch_id)
    assert [(each["event"], each["url"]) for each in told] == [("batch.failed", "https://example.com/hook")]


async def test_a_batch_that_cannot_be_read_before_its_deadline_fails(api: Api) -> None:
    batch_id = new_id("batch")
    file_id = await api.upload(line(1))
    await api.store.intake.create_batch(NewBatch(batch_id, expires_at=1.0, input_file_id=file_id))
    await api.fill()
    batch = await api.batch(batch_id)
    assert [error["code"] for error in batch["errors"]["data"]] == ["batch_expired"]


async def test_a_filler_that_stops_leaves_its_batch_to_others_at_once(api: Api) -> None:
    batch_id = await api.created(line(1))
    assert await api.store.filling.claim("filler", 15.0)
    assert await api.store.filling.claim("other", 15.0) is None
    await api.filler.release()
    taken = await api.store.filling.claim("other", 15.0)
    assert taken is not None and taken.id == batch_id


async def test_an_empty_file_fails_the_batch(api: Api) -> None:
    batch_id = await api.created(b"\n\n")
    await api.fill()
    batch = await api.batch(batch_id)
    assert [error["code"] for error in batch["errors"]["data"]] == ["empty_file"]


async def test_a_file_whose_bytes_are_gone_fails_the_batch(api: Api) -> None:
    file_id = await api.upload(line(1))
    batch_id = await api.created(input_file_id=file_id)
    await api.context.blobs.delete(file_id)
    await api.fill()
    batch = await api.batch(batch_id)
    assert batch["status"] == "failed"
    assert [error["code"] for error in batch["errors"]["data"]] == ["input_file_unreadable"]


async def test_a_filler_that_died_is_followed_by_another_which_repeats_no_line(api: Api) -> None:
    batch_id = await api.created(lines(range(2 * SLICE + 7)))
    claimed = await api.store.filling.claim("dying", 0.0)
    assert claimed is not None and claimed.written_lines == 0
    reader = BatchReader(SETTINGS, CHAT, RouteOptions())
    jobs = reader.read(lines(range(2 * SLICE + 7)))[:SLICE]
    assert await api.store.filling.fill(batch_id, "dying", 0.0, jobs)
    await api.fill()
    assert not await api.store.filling.fill(batch_id, "dying", 0.0, reader.read(line(1)))
    assert not await api.store.filling.open_filled(batch_id, "dying", 1)
    batch = await api.batch(batch_id)
    assert (batch["status"], batch["request_counts"]["total"]) == ("in_progress", 2 * SLICE + 7)
    views = [await api.store.jobs.view(job) for job in await api.jobs(batch_id)]
    assert sorted(view.line for view in views if view) == list(range(1, 2 * SLICE + 8))


async def test_a_filler_that_was_followed_writes_nothing_more(api: Api) -> None:
    batch_id = await api.created(lines(range(3)))
    jobs = BatchReader(SETTINGS, CHAT, RouteOptions()).read(lines(range(3)))
    assert await api.store.filling.claim("late", 0.0)
    assert await api.store.filling.claim("next", 15.0)
    assert not await api.store.filling.fill(batch_id, "late", 15.0, jobs)
    assert not await api.store.filling.open_filled(batch_id, "late", 0)
    assert not await api.store.filling.fail(batch_id, "late", [])
    assert await api.store.filling.fill(batch_id, "next", 15.0, jobs)
    assert await api.store.filling.open_filled(batch_id, "next", 3)


async def test_two_fillers_do_not_take_the_same_batch(api: Api) -> None:
    await api.created(line(1))
    one, two = await asyncio.gather(api.store.filling.claim("a", 15.0), api.store.filling.claim("b", 15.0))
    assert (one is None) != (two is None)


async def test_a_request_that_is_repeated_makes_nothing_new(api: Api) -> None:
    file_id = await api.upload(line(1))
    first = await api.created(input_file_id=file_id, metadata={"a": "b"})
    retried = {"x-stainless-retry-count": "1"}
    again = await api.created(input_file_id=file_id, metadata={"a": "b"}, headers=retried)
    other = await api.created(input_file_id=file_id, metadata={"a": "c"}, headers=retried)
    new = await api.created(input_file_id=file_id, metadata={"a": "b"}, headers={"x-stainless-retry-count": "0"})
    assert again == first
    assert len({first, other, new}) == 3


async def test_a_named_request_makes_one_batch_and_its_name_fits_no_other_request(api: Api) -> None:
    file_id = await api.upload(line(1))
    named = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(*(api.created(input_file_id=file_id, headers=named) for _ in range(20)))
    assert len(set(answers)) == 1
    other = await api.create(input_file_id=file_id, metadata={"x": "y"}, headers=named)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len((await api.http.get("/v1/batches")).json()["data"]) == 1


async def test_a_batch_is_cancelled_while_it_is_validated_and_leaves_no_lines(api: Api) -> None:
    batch_id = await api.created(lines(range(SLICE + 1)))
    claimed = await api.store.filling.claim("slow", 15.0)
    reader = BatchReader(SETTINGS, CHAT, RouteOptions())
    assert claimed and await api.store.filling.fill(batch_id, "slow", 15.0, reader.read(lines(range(10))))
    response = await api.post(f"/v1/batches/{batch_id}/cancel")
    batch = response.json()
    assert (response.status_code, batch["status"]) == (200, "cancelled")
    assert batch["cancelled_at"] and batch["cancelling_at"]
    assert not await api.store.filling.fill(batch_id, "slow", 15.0, reader.read(line(11)))
    await api.fill()
    assert await api.jobs(batch_id) == []
    assert (await api.post(f"/v1/batches/{batch_id}/cancel")).json()["status"] == "cancelled"


async def end_half(api: Api, batch_id: str) -> None:
    """A batch of six jobs, of which two succeed and one fails."""
    worker = await new_worker(api.store)
    jobs = await api.store.claims.start(worker, (await api.jobs(batch_id))[:3])
    await api.store.claims.settle(worker, [succeeded(jobs[0]), succeeded(jobs[1]), failed(jobs[2])])


async def test_cancelled_half_way_output_and_error_lines_are_all_lines(api: Api) -> None:
    batch_id = await api.created(lines(range(6)))
    await api.fill()
    await end_half(api, batch_id)
    response = await api.post(f"/v1/batches/{batch_id}/cancel")
    assert response.json()["status"] == "cancelling"
    assert response.json()["cancelling_at"] and response.json()["cancelled_at"] is None
    while await api.store.batch_lifecycle.cancel_slice():
        continue
    await api.store.batch_lifecycle.close_finished()
    batch = await api.batch(batch_id)
    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 6, "completed": 2, "failed": 4}
    assert batch["output_file_id"] and batch["error_file_id"]
    usage = batch["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    assert usage["input_tokens_details"] == {"cached_tokens": 4}
    assert usage["output_tokens_details"] == {"reasoning_tokens": 2}
    rows = [row async for page in part_pages(api.store, batch_id, "error") for row in page]
    assert [row.state for row in rows].count(JobState.CANCELLED) == 3 and len(rows) == 4
    again = await api.post(f"/v1/batches/{batch_id}/pause")
    assert (again.status_code, again.json()["error"]["code"]) == (400, "batch_ended")


async def test_all_lines_failed_is_completed_with_an_error_file_only(api: Api) -> None:
    batch_id = await api.created(lines(range(2)))
    await api.fill()
    worker = await new_worker(api.store)
    await api.store.claims.settle(
        worker, [failed(job) for job in await api.store.claims.start(worker, await api.jobs(batch_id))]
    )
    await api.store.batch_lifecycle.close_finished()
    batch = await api.batch(batch_id)
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    assert batch["error_file_id"] and batch["finalizing_at"] == batch["completed_at"]
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert (await api.post(f"/v1/batches/{batch_id}/cancel")).status_code == 400


async def test_results_are_read_before_the_end_page_by_page(api: Api) -> None:
    batch_id = await api.created(lines(range(6)))
    await api.fill()
    await end_half(api, batch_id)
    seen, after = [], ""
    while True:
        page = await api.http.get(f"/v1/batches/{batch_id}/results", params={"limit": 2, "after": after})
        assert page.status_code == 200 and page.headers["content-type"].startswith("application/jsonl")
        seen += [orjson.loads(each) for each in page.text.splitlines()]
        after = page.headers.get(NEXT_AFTER, "")
        if not after:
            break
    assert [each["custom_id"] for each in seen] == ["r0", "r1", "r2"]
    assert [each["error"] is None for each in seen] == [True, True, False]


async def test_lists_go_newest_first_with_a_cursor(api: Api) -> None:
    file_id = await api.upload(line(1))
    ids = [await api.created(input_file_id=file_id) for _ in range(5)]
    seen: list[str] = []
    while True:
        asked = {"limit": "2", **({"after": seen[-1]} if seen else {})}
        page = (await api.http.get("/v1/batches", params=asked)).json()
        assert page["object"] == "list"
        seen += [each["id"] for each in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], seen[-1])
        if not page["has_more"]:
            break
    assert seen == ids[::-1]
    for asked in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"after": "a\0b"}):
        assert (await api.http.get("/v1/batches", params=asked)).status_code == 400


async def test_what_is_answered_is_what_the_documentation_says(api: Api) -> None:
    batch_id = await api.created(lines(range(6)))
    await api.fill()
    await end_half(api, batch_id)
    shown = await api.batch(batch_id)
    assert TypeAdapter(BatchObject).validate_python(shown) == shown


async def test_a_batch_is_held_and_goes_on(api: Api) -> None:
    batch_id = await api.created(line(1))
    held = (await api.post(f"/v1/batches/{batch_id}/pause")).json()
    assert held["understudy"]["paused"] == "paused by its owner"
    assert (await api.post(f"/v1/batches/{batch_id}/resume")).json()["understudy"]["paused"] is None


async def test_a_batch_that_spent_its_budget_is_granted_it_again_by_resume(api: Api) -> None:
    batch_id = await api.created(line(1), budget_usd=0.5)
    await api.fill()
    ours = (await api.batch(batch_id))["understudy"]
    assert (ours["budget_usd"], ours["reserved_usd"], ours["paused"]) == (0.5, 0, None)
    await api.store.budgets.pause_spent(batch_id, 0.5, "its budget of 0.50 USD is reached: …")
    ours = (await api.post(f"/v1/batches/{batch_id}/resume")).json()["understudy"]
    assert (ours["budget_usd"], ours["paused"]) == (1.0, None)
    ours = (await api.post(f"/v1/batches/{batch_id}/resume?budget_usd=7")).json()["understudy"]
    assert ours["budget_usd"] == 7.0
    assert (await api.post(f"/v1/batches/{batch_id}/resume?budget_usd=0")).status_code == 400


async def test_a_redis_that_hangs_holds_no_list_of_batches_up(api: Api) -> None:
    async def hear_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            continue
        writer.close()

    made = [await api.created(line(1), budget_usd=0.5, metadata={"number": str(number)}) for number in range(12)]
    silent = await asyncio.start_server(hear_out, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with silent, Redis(port=port, socket_timeout=2.0) as hanging, asyncio.timeout(6):
        api.context.redis = hanging
        listed = (await api.http.get("/v1/batches")).json()["data"]
    assert [each["understudy"]["reserved_usd"] for each in listed] == [None] * len(made)


@pytest.mark.parametrize("path", ["", "/cancel", "/pause", "/resume", "/results"])
async def test_another_tenants_batch_is_as_if_it_did_not_exist(api: Api, path: str) -> None:
    foreign = new_id("batch")
    await api.store.intake.create_batch(NewBatch(foreign, tenant="other", expires_at=9e9))
    for batch_id in (foreign, "batch_absent"):
        method = "GET" if path in ("", "/results") else "POST"
        response = await api.http.request(method, f"/v1/batches/{batch_id}{path}")
        assert response.status_code == 404, (batch_id, path)
    view = await api.store.batches.view(foreign)
    assert view is not None and view.state == "validating"
