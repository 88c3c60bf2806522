"""What tenants may store: bytes and open batches, unused uploads, and a disk that is nearly full."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from api_help import Clock, Served, bearer, key_for, served
from ledger_help import new_worker, succeeded

from understudy.models.api_keys import Scope
from understudy.models.cancellation import running
from understudy.models.config.settings import Settings
from understudy.models.routing.chain import CHAT
from understudy.models.store import Store, open_store
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.store.erasure import REMOVED
from understudy.models.store.sql import chain
from understudy.models.store.sql import file as store_files
from understudy.models.tenants import NO_LIMIT, TenantLimits
from understudy.producer.api.access import admission
from understudy.producer.api.errors import ApiError
from understudy.producer.api.files.blobs import remove_expired, sweep_files
from understudy.producer.ingest.batch_filler import Filler

PROVIDERS = {"lead": {"base_url": "http://127.0.0.1:1/v1"}}
MESSAGES = [{"role": "user", "content": "hello"}]


def settings(folder: Path, **api: Any) -> Settings:
    return Settings.model_validate({"data": folder, "providers": PROVIDERS, "api": api})


def lines(count: int, content: str = "hello") -> bytes:
    body = {"model": "lead/m", "messages": [{"role": "user", "content": content}]}
    rows = ({"custom_id": str(number), "method": "POST", "url": CHAT, "body": body} for number in range(count))
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


@dataclass
class Room:
    api: Served
    store: Store
    http: httpx.AsyncClient
    clock: Clock
    settings: Settings

    async def upload(self, content: bytes, **headers: Any) -> httpx.Response:
        return await self.http.post(
            "/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}, headers=headers
        )

    async def batch(self, content: bytes) -> httpx.Response:
        file_id = (await self.upload(content)).json()["id"]
        words = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        return await self.http.post("/v1/batches", json=words)

    async def fill(self) -> None:
        filler = Filler(self.settings, self.store, self.in_pieces, "filler")
        while await filler.step():
            continue

    async def in_pieces(self, file_id: str) -> AsyncIterator[bytes]:
        """Small slices, so that rows are written before a bad line further down is found."""
        async for chunk in self.api.context.blobs.read(file_id):
            for start in range(0, len(chunk), 10_000):
                yield chunk[start : start + 10_000]

    async def stored(self, tenant: str = "acme") -> int:
        return (await self.store.tenants.stored(tenant)).stored_bytes

    async def set(self, **limits: Any) -> None:
        await self.store.tenants.set_limits(TenantLimits("acme", **limits), actor="test")
        self.later()

    def later(self) -> None:
        """Make the application read the ledger's sums again."""
        self.clock.now += 100


@pytest.fixture
async def room(store: Store, tmp_path: Path) -> AsyncIterator[Room]:
    clock, chosen = Clock(1_000.0), settings(tmp_path)
    async with served(store, time.time, chosen, clock) as api:
        headers = bearer(await key_for(store, Scope.ADMIN, tenant="acme"))
        async with api.client() as http:
            http.headers.update(headers)
            yield Room(api, store, http, clock, chosen)


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 429, answer.text
    assert 0 < int(answer.headers["retry-after"]) < 120
    return str(answer.json()["error"]["code"])


async def test_uploads_are_taken_up_to_what_the_tenant_may_have_and_not_beyond(room: Room) -> None:
    await room.set(stored_bytes=300_000)
    content = b"{}\n" + b" " * 90_000
    answers = [await room.upload(content) for _ in range(6)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429, 429, 429]
    error = answers[-1].json()["error"]
    assert error["code"] == "tenant_storage_full"
    assert "of at most 300.0 kB" in error["message"]
    room.later()
    assert refused(await room.upload(content)) == "tenant_storage_full", "the ledger says the same"
    assert (await room.http.get("/v1/tenant")).json()["stored_bytes"] == 300_000
    other = bearer(await key_for(room.store, Scope.SUBMIT, tenant="other"))
    assert (await room.upload(content, **{k: v.decode() for k, v in other.items()})).status_code == 200


async def test_uploads_that_arrive_at_the_same_time_count_together(room: Room) -> None:
    await room.set(stored_bytes=400_000)
    answers = await asyncio.gather(*(room.upload(b"{}\n" + b" " * 90_000) for _ in range(12)))
    taken = sum(each.status_code == 200 for each in answers)
    assert 1 <= taken <= 4
    assert await room.stored() == taken * (90_003 + ROW_BYTES)


async def test_what_is_deleted_makes_room_again(room: Room) -> None:
    await room.set(stored_bytes=100_000)
    content = b"{}\n" + b" " * 90_000
    file_id = (await room.upload(content)).json()["id"]
    assert refused(await room.upload(content)) == "tenant_storage_full"
    assert (await room.http.delete(f"/v1/files/{file_id}")).status_code == 200
    await remove_expired(room.api.context.store, room.api.context.blobs)
    room.later()
    assert (await room.upload(content)).status_code == 200


async def test_jobs_and_lines_count_with_their_prompts_answers_and_rows(room: Room) -> None:
    await room.set(stored_bytes=60_000)
    big = {"model": "lead/m", "messages": [{"role": "user", "content": "ü" * 15_000}]}
    assert (await room.http.post("/v1/jobs", json=big)).status_code == 202
    assert 30_000 + ROW_BYTES < await room.stored() < 31_000 + ROW_BYTES
    assert refused(await room.http.post("/v1/jobs", json=big)) == "tenant_storage_full"
    two = {"jobs": [big, big]}
    assert refused(await room.http.post("/v1/jobs:batch", json=two)) == "tenant_storage_full"
    assert refused(await room.http.post("/v1/chat/completions", json=big)) == "tenant_storage_full"
    assert (await room.http.post("/v1/jobs", json={"model": "lead/m", "messages": MESSAGES})).status_code == 202


async def test_what_a_name_remembers_counts_until_it_is_removed(room: Room) -> None:
    await room.set(stored_bytes=400_000)
    jobs = [{"model": "lead/m", "messages": MESSAGES}, *[{"model": "n" * 200 + "/m", "messages": MESSAGES}] * 999]
    answers = [
        await room.http.post("/v1/jobs:batch", json={"jobs": jobs}, headers={"Idempotency-Key": f"k{number}"})
        for number in range(4)
    ]
    taken = [each for each in answers if each.status_code == 200]
    assert len(taken) == 1 and refused(answers[-1]) == "tenant_storage_full"
    assert await room.stored() == pytest.approx(len(taken[0].content) + ROW_BYTES, abs=200)
    room.later()
    again = await room.http.post("/v1/jobs:batch", json={"jobs": jobs}, headers={"Idempotency-Key": "k0"})
    assert again.content == taken[0].content

    job_id = taken[0].json()["data"][0]["id"]
    assert (await room.http.delete(f"/v1/jobs/{job_id}")).status_code == 200
    assert (await room.http.post(f"/v1/jobs/{job_id}/ack")).status_code == 200
    await room.store.content.forget_delivered("until_delivered", 0.0)
    again = await room.http.post("/v1/jobs:batch", json={"jobs": jobs}, headers={"Idempotency-Key": "k0"})
    assert again.json()["data"][1]["error"]["message"] == REMOVED
    assert await room.stored() == len(again.content) + ROW_BYTES


async def test_what_a_caller_writes_into_the_steps_of_a_chain_counts_once_for_those_that_share_it(room: Room) -> None:
    await room.set(stored_bytes=60_000)
    fallback = {"model": "lead/other", "user": "u" * 20_000}
    job = {"model": "lead/m", "messages": MESSAGES, "fallbacks": [fallback], "metadata": {"why": "w" * 500}}
    several = await room.http.post("/v1/jobs:batch", json={"jobs": [job] * 3})
    assert several.status_code == 200 and several.json()["data"][0]["id"], several.text
    assert 20_000 + 3 * (500 + ROW_BYTES) < await room.stored() < 20_500 + 3 * (600 + ROW_BYTES)
    one, other, third = [{**job, "fallbacks": [{**fallback, "seed": number}]} for number in range(3)]
    assert (await room.http.post("/v1/jobs", json=one)).status_code == 202
    for each in (other, third):
        assert refused(await room.http.post("/v1/jobs", json=each)) == "tenant_storage_full"


async def test_a_batch_counts_from_its_acceptance_and_until_its_content_is_gone(room: Room) -> None:
    content = lines(20, "x" * 2_000)
    created = await room.batch(content)
    assert created.status_code == 200, created.text
    batch_id = created.json()["id"]
    of_file = len(content) + ROW_BYTES
    assert await room.stored() == of_file + len(content) + ROW_BYTES, "its file is to be read"
    await room.fill()
    filled = await room.stored()
    assert of_file + 20 * (2_000 + ROW_BYTES) < filled < of_file + 20 * (2_200 + ROW_BYTES) + ROW_BYTES
    worker = await new_worker(room.store)
    ids = [job.id async for job in room.store.reruns.unfinished(batch_id)]
    await room.store.claims.settle(
        worker, [succeeded(each, "y" * 5_000) for each in await room.store.claims.start(worker, ids)]
    )
    answered = await room.stored()
    assert answered - filled == pytest.approx(20 * 5_000, abs=20 * 50)
    await room.store.outputs.forget_part(batch_id, "output")
    assert await room.stored() == of_file + 20 * ROW_BYTES + ROW_BYTES
    await room.store.batch_lifecycle.close_finished()
    await room.store.retention.discard_batch(batch_id)
    assert await room.stored() == of_file


async def test_what_is_refused_or_cancelled_before_it_was_accepted_takes_no_room(room: Room) -> None:
    created = await room.batch(lines(700) + b"{}\n")
    assert created.status_code == 200
    await room.fill()
    await room.fill()
    assert (await room.http.get(f"/v1/batches/{created.json()['id']}")).json()["status"] == "failed"
    assert await room.stored() == len(lines(700)) + 3 + 2 * ROW_BYTES, "its file, and the row that says why"


async def test_no_more_batches_are_open_than_the_tenant_may_have(room: Room) -> None:
    await room.set(open_batches=2)
    answers = [await room.batch(lines(1)) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert refused(answers[2]) == "too_many_open_batches"
    await room.fill()
    room.later()
    assert refused(await room.batch(lines(1))) == "too_many_open_batches"
    assert (await room.http.post(f"/v1/batches/{answers[0].json()['id']}/cancel")).status_code == 200
    while await room.store.batch_lifecycle.cancel_slice():
        continue
    await room.store.batch_lifecycle.close_finished()
    room.later()
    assert (await room.batch(lines(1))).status_code == 200


async def test_defaults_let_bulk_users_through_and_single_users_notice_nothing(store: Store, tmp_path: Path) -> None:
    async with served(store, time.time, settings(tmp_path)) as api, api.client() as http:
        alone = (await http.get("/v1/tenant")).json()
        assert (alone["stored_bytes"], alone["open_batches"]) == (None, None)
        headers = bearer(await key_for(store, Scope.ADMIN))
        api.context.keyring.forget()
        bulk = (await http.get("/v1/tenant", headers=headers)).json()
        assert bulk["stored_bytes"] == shutil.disk_usage(tmp_path).total // 4
        assert bulk["open_batches"] == 1_000
        await store.tenants.set_limits(TenantLimits("default", stored_bytes=NO_LIMIT, open_batches=5), actor="test")
        lifted = (await http.get("/v1/tenant", headers=headers)).json()
        assert (lifted["stored_bytes"], lifted["open_batches"]) == (None, 5)


@pytest.mark.parametrize("said_by", ["nobody", "configuration"])
async def test_defaults_apply_to_tenants_with_a_key_and_no_limit_of_their_own(
    said_by: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(admission.shutil, "disk_usage", lambda _: usage._replace(total=800_000, free=10**9))
    monkeypatch.setattr(admission, "OPEN_BATCHES", 1)
    chosen = {} if said_by == "nobody" else {"tenant_stored_bytes": 200_000, "tenant_open_batches": 1}
    async with served(store, time.time, settings(tmp_path, **chosen)) as api, api.client() as http:
        room = Room(api, store, http, Clock(0.0), api.context.settings)
        http.headers.update(bearer(await key_for(store, Scope.SUBMIT, tenant="acme")))
        batches = [await room.batch(lines(1)) for _ in range(2)]
        assert batches[0].status_code == 200 and refused(batches[1]) == "too_many_open_batches"
        content = b"{}\n" + b" " * 90_000
        uploads = [await room.upload(content) for _ in range(3)]
        assert [each.status_code for each in uploads[:2]] == [200, 200]
        assert refused(uploads[2]) == "tenant_storage_full"


async def test_unused_uploads_end_by_themselves(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    chosen = settings(tmp_path, unused_uploads_kept_s=1_000)
    async with open_store(None, tmp_path, lambda: now[0]) as store, served(store, lambda: now[0], chosen) as api:
        async with api.client() as http:
            room = Room(api, store, http, Clock(0.0), chosen)
            file_id = (await room.upload(lines(1))).json()["id"]
            now[0] += 5_000
            async with running(sweep_files(api.context), name="sweep-files"), asyncio.timeout(20):
                while (await http.get(f"/v1/files/{file_id}")).status_code != 404:
                    await asyncio.sleep(0.02)
                now[0] += 1
                while (tmp_path / "files" / file_id).exists():
                    api.context.deleted_files.set()
                    await asyncio.sleep(0.02)


async def test_unused_uploads_expire_and_those_of_batches_stay(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    chosen = settings(tmp_path)
    async with open_store(None, tmp_path, lambda: now[0]) as store, served(store, lambda: now[0], chosen) as api:
        for file_id in ("file_used", "file_unused", "file_new"):
            await api.context.blobs.put(file_id, chunks(lines(1)))
        async with store._db.write() as connection:
            for file_id, age_s in (("file_used", 40), ("file_unused", 31), ("file_new", 29)):
                row = {"id": file_id, "tenant": "default", "purpose": "batch", "filename": "x", "bytes": 1, "lines": 1}
                created_at = now[0] - age_s * 86_400
                await connection.execute(store_files.insert(), {**row, "created_at": created_at, "expires_at": None})
        async with api.client() as http:
            words = {"input_file_id": "file_used", "endpoint": CHAT, "completion_window": "24h", "model": "lead/m"}
            assert (await http.post("/v1/batches", json=words)).status_code == 200
        now[0] += 1
        assert await store.retention.end_unused_uploads(chosen.api.unused_uploads_kept_s) == 1
        now[0] += 1
        await remove_expired(api.context.store, api.context.blobs)
        left = {each.id for each in await store.files.page("default", ["batch"], 10, None, False) or []}
        assert left == {"file_used", "file_new"}


async def test_below_the_floor_of_free_space_uploads_and_batches_are_the_first_to_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(None, tmp_path) as store:
        async with served(store, time.time, settings(tmp_path, min_free_bytes=10**9)) as api, api.client() as http:
            room = Room(api, store, http, Clock(0.0), api.context.settings)
            uploaded = (await room.upload(lines(1))).json()["id"]
            usage = shutil.disk_usage(tmp_path)
            monkeypatch.setattr(admission.shutil, "disk_usage", lambda _: usage._replace(free=10**9 - 1))
            assert refused(await room.upload(lines(1))) == "storage_full"
            words = {"input_file_id": uploaded, "endpoint": CHAT, "completion_window": "24h", "model": "lead/m"}
            answer = await http.post("/v1/batches", json=words)
            assert refused(answer) == "storage_full"
            assert not any(each.isdigit() for each in answer.json()["error"]["message"].partition(";")[0])
            job = await http.post("/v1/jobs", json={"model": "lead/m", "messages": MESSAGES})
            assert job.status_code == 202, "what takes little goes on"


@pytest.mark.parametrize(("total", "kept"), [(10**12, 10**9), (10**10, 5 * 10**8)])
def test_a_twentieth_of_the_disk_or_a_gigabyte_is_left_free(
    total: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(admission.shutil, "disk_usage", lambda _: usage._replace(total=total, free=kept))
    assert admission.kept_free(settings(tmp_path)) == kept
    assert admission.kept_free(settings(tmp_path, min_free_bytes=7)) == 7
    with pytest.raises(ApiError, match="nearly full"):
        admission.reject_near_full(settings(tmp_path), 1)
    admission.reject_near_full(settings(tmp_path), 0)


async def test_an_upload_is_broken_off_where_the_disk_becomes_full_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, first = shutil.disk_usage(tmp_path), iter([True])
    left = lambda _: usage._replace(free=2 * 10**9 if next(first, False) else 10**8)  # noqa: E731
    async with open_store(None, tmp_path) as store:
        async with served(store, time.time, settings(tmp_path, min_free_bytes=10**9)) as api, api.client() as http:
            room = Room(api, store, http, Clock(0.0), api.context.settings)
            monkeypatch.setattr(admission.shutil, "disk_usage", left)
            assert refused(await room.upload(b"{}\n" + b" " * 3_000_000)) == "storage_full"
            assert not list((tmp_path / "files").glob("*"))


async def test_a_batch_is_not_filled_into_the_space_that_is_kept(tmp_path: Path) -> None:
    async with open_store(None, tmp_path) as store:
        chosen = settings(tmp_path)
        async with served(store, time.time, chosen) as api, api.client() as http:
            room = Room(api, store, http, Clock(0.0), chosen)
            created = await room.batch(lines(3))
            kept = shutil.disk_usage(tmp_path).total
            filler = Filler(chosen, store, api.context.blobs.read, "filler", kept_bytes=kept)
            while await filler.step():
                continue
            shown = (await http.get(f"/v1/batches/{created.json()['id']}")).json()
            assert (shown["status"], shown["errors"]["data"][0]["code"]) == ("failed", "no_room")


async def test_chains_of_refused_batches_are_gone_with_them(room: Room) -> None:
    def row(number: int) -> bytes:
        body = {"model": "lead/m", "messages": MESSAGES, "fallbacks": [{"model": "lead/n", "seed": number}]}
        return orjson.dumps({"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}) + b"\n"

    created = await room.batch(b"".join(map(row, range(600))) + b"{}\n")
    assert created.status_code == 200
    await room.fill()
    async with room.store._db.read() as connection:
        assert (await connection.execute(chain.select())).all() == []


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content
