"""Retrying over HTTP what has no answer, with the same chain or another one."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from api_help import Clock, Served, served
from ledger_help import failed, new_worker, open_batch, succeeded

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.producer.api.batches.retry import LEFT_OUT

PROVIDER = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}
SETTINGS = Settings.model_validate(
    {"providers": {"lead": PROVIDER}, "chains": {"other": {"steps": ["lead/y"]}}, "batches": {"canary_lines": 0}}
)


@pytest.fixture
async def room(store: Store) -> AsyncIterator[Served]:
    async with served(store, Clock(await store.now()), SETTINGS) as opened:
        yield opened


async def post(room: Served, path: str, **query: Any) -> httpx.Response:
    async with room.client() as http:
        return await http.post(f"/v1/batches/{path}", params=query)


async def half_failed(store: Store) -> str:
    """Six jobs: two refused, one lost, one answered, two waiting."""
    batch_id, ids = await open_batch(store, 6)
    worker = await new_worker(store)
    refused, also_refused, lost, answered = await store.claims.start(worker, ids[:4])
    await store.claims.settle(
        worker,
        [failed(refused), failed(also_refused), failed(lost, FailureClass.MODEL_MISSING), succeeded(answered)],
    )
    return batch_id


async def steps_of(store: Store, batch_id: str) -> list[str]:
    return [str(job.chain.steps[0]) async for job in store.reruns.unfinished(batch_id)]


async def test_what_failed_runs_again_and_what_is_left_out_is_counted(room: Served, store: Store) -> None:
    batch_id = await half_failed(store)
    answer = await post(room, f"{batch_id}/retry")
    assert answer.status_code == 200, answer.text
    again = answer.json()
    assert again["understudy"]["retry_of"] == batch_id
    assert (again["request_counts"]["total"], answer.headers[LEFT_OUT]) == (1, "2")
    async with room.client() as http:
        assert (await http.get(f"/v1/batches/{batch_id}")).json()["understudy"]["retries"] == [again["id"]]
    answer = await post(room, f"{batch_id}/retry")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "nothing_to_retry")
    assert "2 bad_request; ?all=true retries them, too" in answer.json()["error"]["message"]
    answer = await post(room, f"{batch_id}/retry", all="true")
    assert (answer.json()["request_counts"]["total"], answer.headers[LEFT_OUT]) == (2, "0")


async def test_another_chain_is_for_what_failed(room: Served, store: Store) -> None:
    batch_id = await half_failed(store)
    answer = await post(room, f"{batch_id}/retry", chain="othr")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "chain")
    answer = await post(room, f"{batch_id}/retry", chain="other")
    assert answer.status_code == 200, answer.text
    assert await steps_of(store, answer.json()["id"]) == ["lead/y"] * 3
    answer = await post(room, f"{batch_id}/retry", answered_by="lead", model="lead/z")
    assert await steps_of(store, answer.json()["id"]) == ["lead/z"]


@pytest.mark.parametrize("query", [{"model": "unknown/x"}, {"chain": "othr"}, {"model": "nowhere"}])
@pytest.mark.parametrize("answered_by", [{}, {"answered_by": "other"}])
async def test_a_route_that_does_not_exist_is_said_although_nothing_is_left_to_try(
    room: Served, store: Store, query: dict[str, str], answered_by: dict[str, str]
) -> None:
    batch_id, ids = await open_batch(store, 1)
    worker = await new_worker(store)
    await store.claims.settle(worker, [succeeded(job) for job in await store.claims.start(worker, ids)])
    answer = await post(room, f"{batch_id}/retry", **query, **answered_by)
    assert answer.status_code in (400, 404) and answer.json()["error"]["param"] == next(iter(query)), answer.text
    answer = await post(room, f"{batch_id}/retry", model="lead/z", **answered_by)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "nothing_to_retry")


async def test_a_held_batch_goes_on_along_another_chain(room: Served, store: Store) -> None:
    batch_id = await half_failed(store)
    await store.batch_lifecycle.pause(batch_id, "held")
    answer = await post(room, f"{batch_id}/resume", model="lead/right")
    assert answer.status_code == 200, answer.text
    ours = answer.json()["understudy"]
    assert ours["paused"] is None
    assert await steps_of(store, batch_id) == ["lead/right"] * 2
    assert [await steps_of(store, each) for each in ours["retries"]] == [["lead/right"] * 3]


async def test_a_retry_needs_room_like_all_that_is_submitted(room: Served, store: Store) -> None:
    batch_id = await half_failed(store)
    await store.tenants.set_limits(TenantLimits("default", queued_jobs=4), actor="a test")
    answer = await post(room, f"{batch_id}/retry")
    assert answer.status_code == 429, answer.text
    assert (await store.batches.retries_of(batch_id)) == []


async def test_only_its_owner_runs_a_batch_again(room: Served, store: Store) -> None:
    batch_id, _ = await open_batch(store, 1, tenant="acme")
    assert (await post(room, f"{batch_id}/retry")).status_code == 404
