"""A ledger that cannot be written to: requests are refused before anything is accepted, and nothing is left half
done."""

import asyncio
import fcntl
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_help import served

from understudy.models.config.settings import Settings
from understudy.models.store import Store, open_store
from understudy.producer.api.files.blobs import open_blobs

PROVIDERS = {"alpha": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}
BIG = "x" * 50_000
JOB: dict[str, Any] = {"model": "alpha/m", "messages": [{"role": "user", "content": BIG}]}
COUNTED = ("job", "job_input", "batch", "file", "idempotency", "lane", "webhook_delivery")
ROOM_PAGES = 2
TURN_S = 5


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(None, tmp_path) as store:
        yield store


@pytest.fixture
async def http(sqlite: Store, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.model_validate({"data": tmp_path, "providers": PROVIDERS})
    async with served(sqlite, time.time, settings) as up:
        up.context.blobs = open_blobs(settings)
        async with up.client() as client:
            yield client


def rows(folder: Path) -> dict[str, int]:
    with sqlite3.connect(folder / "ledger.db") as connection:
        return {each: connection.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in COUNTED}


async def limit_pages(store: Store, more: int) -> None:
    async with store._db.write() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {int(pages or 0) + more}")


def posts(http: httpx.AsyncClient) -> dict[str, Any]:
    """One request of each kind that writes."""
    return {
        "job": lambda: http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "one"}),
        "jobs": lambda: http.post("/v1/jobs:batch", json={"jobs": [JOB] * 5}, headers={"Idempotency-Key": "many"}),
        "chat": lambda: http.post("/v1/chat/completions", json={**JOB, "background": True}),
    }


@pytest.mark.parametrize("kind", ["job", "jobs", "chat"])
async def test_a_full_disk_refuses_before_anything_is_accepted(
    sqlite: Store, http: httpx.AsyncClient, tmp_path: Path, kind: str
) -> None:
    before = rows(tmp_path)
    await limit_pages(sqlite, ROOM_PAGES)
    refused = await posts(http)[kind]()
    assert refused.status_code == 503, refused.text
    assert "retry-after" in refused.headers and "full" in refused.json()["error"]["message"]
    assert BIG[:100] not in refused.text
    assert rows(tmp_path) == before
    await limit_pages(sqlite, 10_000)
    assert (await posts(http)[kind]()).status_code in (200, 202)


@pytest.mark.timeout(60)
async def test_a_ledger_that_another_program_writes_refuses_and_keeps_no_upload(
    sqlite: Store, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    before = rows(tmp_path)
    with (tmp_path / "ledger.db.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        upload = http.post("/v1/files", files={"file": ("a.jsonl", b"{}\n")}, data={"purpose": "batch"})
        began = time.monotonic()
        answers = await asyncio.gather(upload, *(each() for each in posts(http).values()))
        assert [each.status_code for each in answers] == [503] * 4
        assert all("retry-after" in each.headers for each in answers)
    assert time.monotonic() - began < TURN_S + 4, "who waits together is refused together"
    assert rows(tmp_path) == before
    assert not list((tmp_path / "files").glob("file_*")), "nobody could ever read or delete it"
    for post in posts(http).values():
        assert (await post()).status_code in (200, 202)
