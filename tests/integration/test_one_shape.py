"""Jobs, batches, calls, providers and deliveries are one JSON document each: over HTTP, with `--json`, in webhooks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_help import Served, bearer, key_for, served
from commands import type_command
from ledger_help import failed, new_worker, open_batch, sqlite_ledger, succeeded
from pydantic import TypeAdapter

from understudy.models.api_keys import Scope
from understudy.models.config.settings import ApiSettings, Settings
from understudy.models.failure import FailureClass
from understudy.models.objects.attempt import AttemptList, AttemptObject, AttemptSummary
from understudy.models.store import Store

PUBLIC_URL = "https://jobs.example.org"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    async with served(store, time.time, Settings(api=ApiSettings(public_url=PUBLIC_URL))) as opened:
        yield opened


@pytest.fixture
async def batch_id(store: Store) -> str:
    """Of three lines: one is answered, one failed, one waits."""
    batch_id, ids = await open_batch(store, 3)
    worker = await new_worker(store)
    answered, refused = await store.claims.start(worker, ids[:2])
    await store.claims.settle(worker, [succeeded(answered), failed(refused, FailureClass.CONTEXT_LENGTH)])
    return batch_id


async def over_http(api: Served, path: str) -> Any:
    key = await key_for(api.context.store, Scope.READ, Scope.ADMIN)
    async with api.client() as http:
        answer = await http.get(path, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def typed(folder: Path, *words: str) -> list[Any]:
    """The documents that `understudy WORDS --json` prints."""
    config = folder / "understudy.toml"
    config.write_text(f'[api]\npublic_url = "{PUBLIC_URL}"\n')
    whole = [*words, "--json", "--data", str(folder), "--config", str(config)]
    done = await asyncio.to_thread(type_command, *whole, folder=folder, environment={})
    assert done.returncode == 0, done.said
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_whole(shape: Any, document: Any) -> bool:
    """Whether the document has all fields of the shape, of their types, and no others."""
    checked = TypeAdapter(shape)
    return bool(checked.dump_python(checked.validate_python(document, strict=True), mode="json") == document)


async def test_a_call_is_one_document(api: Served, tmp_path: Path, batch_id: str) -> None:
    listed = await over_http(api, "/v1/attempts")
    assert is_whole(AttemptList, listed) and len(listed["data"]) == 2
    assert await typed(tmp_path, "attempts", batch_id) == listed["data"][::-1]  # on a terminal the newest is below
    jobs = (await over_http(api, "/v1/jobs"))["data"]
    of_jobs = [call for job in jobs for call in (await over_http(api, f"/v1/jobs/{job['id']}"))["attempts"]]
    assert sorted(of_jobs, key=lambda call: str(call["id"])) == listed["data"][::-1]


def test_what_results_keep_of_a_call_are_fields_of_it() -> None:
    kept, whole = AttemptSummary.__annotations__, AttemptObject.__annotations__
    assert kept.items() <= whole.items()
