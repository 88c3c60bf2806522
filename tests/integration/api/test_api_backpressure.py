"""Backpressure on the real routes: a request that finds no room leaves no row."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_help import Served, bearer, key_for, served
from ledger_help import singles

from understudy.models.api_keys import Scope
from understudy.models.config.provider_settings import Provider
from understudy.models.config.settings import ApiSettings, Settings
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits

JOB: dict[str, Any] = {"model": "local/m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    providers = {"local": Provider(kind="openai", base_url="http://127.0.0.1:9/v1")}
    settings = Settings(api=ApiSettings(max_queued_jobs=500), providers=providers)
    async with served(store, time.time, settings) as opened:
        yield opened


async def test_more_jobs_than_could_ever_wait_are_a_wrong_request(store: Store, api: Served) -> None:
    async with api.client() as http:
        answer = await http.post("/v1/jobs:batch", json={"jobs": [JOB] * 1_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_jobs")
    assert await store.tenants.queued() == {}


async def test_a_full_system_writes_not_one_row(store: Store, api: Served) -> None:
    await singles(store, 498)
    async with api.client() as http:
        for path, body in (("/v1/jobs:batch", {"jobs": [JOB] * 3}), ("/v1/jobs:batch", {"jobs": [JOB] * 500})):
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "system_full")
            assert 1 <= int(answer.headers["retry-after"]) <= 110
        assert await store.tenants.queued() == {"default": 498}
        assert [(await http.post("/v1/jobs", json=JOB)).status_code for _ in range(3)] == [202, 202, 429]
    assert await store.tenants.queued() == {"default": 500}


async def test_one_tenants_limit_is_not_anothers(store: Store, api: Served) -> None:
    await store.tenants.set_limits(TenantLimits("acme", jobs_per_minute=2), actor="test")
    acme, other = [bearer(await key_for(store, Scope.SUBMIT, tenant=each)) for each in ("acme", "other")]
    async with api.client() as http:
        statuses = [
            (await http.post("/v1/jobs", json=JOB, headers=headers)).status_code
            for headers in (acme, acme, acme, other, other, other)
        ]
    assert statuses == [202, 202, 429, 202, 202, 202]
