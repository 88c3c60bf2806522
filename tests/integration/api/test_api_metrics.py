"""What Prometheus reads is what the ledger holds."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from fakeredis import FakeAsyncRedis
from ledger_help import call, new_worker, open_batch, succeeded
from prometheus_client.parser import text_string_to_metric_families

from understudy.models.config.settings import Settings
from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.producer.api import monitoring
from understudy.producer.api.app import create_app
from understudy.producer.api.context import Context

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
async def http(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(monitoring, "KEPT_S", 0.0)
    context = Context(Settings(), store, FakeAsyncRedis(), lambda: 0.0)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Context]:
        yield context

    app = create_app(opened())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        yield client


async def scraped(http: httpx.AsyncClient) -> Samples:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


async def test_the_queue_is_shown_by_priority_with_the_age_of_its_oldest_job(
    store: Store, http: httpx.AsyncClient
) -> None:
    await open_batch(store, 3)
    seen = await scraped(http)
    bulk = (("priority", Priority.BULK.queue),)
    assert seen["understudy_ready_jobs", bulk] == 3
    assert 0 <= seen["understudy_oldest_ready_seconds", bulk] < 60
    assert seen["understudy_ready_jobs", (("priority", "interactive"),)] == 0


async def test_jobs_and_calls_are_counted_as_they_end(store: Store, http: httpx.AsyncClient) -> None:
    _, ids = await open_batch(store, 4)
    worker = await new_worker(store)
    await scraped(http)
    jobs = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [succeeded(job) for job in jobs[:3]])
    seen = await scraped(http)
    assert seen["understudy_jobs_total", (("state", "succeeded"),)] == 3
    assert sum(value for (name, _), value in seen.items() if name == "understudy_attempts_total") == 3
    assert seen["understudy_workers", ()] == 1
    await store.claims.settle(worker, [succeeded(jobs[3])])
    assert (await scraped(http))["understudy_jobs_total", (("state", "succeeded"),)] == 4


@pytest.mark.usefixtures("http")
async def test_minutes_that_are_over_are_counted_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "SETTLED_MINUTES", -2)
    ledger = monitoring.LedgerMetrics()
    ledger._from_minute = 0
    _, ids = await open_batch(store, 2)
    worker = await new_worker(store)
    await store.claims.settle(worker, [succeeded(job) for job in await store.claims.start(worker, ids)])
    for _ in range(3):
        await ledger.read(store)
    counts = {
        sample.labels["state"]: sample.value
        for family in ledger.collect()
        if family.name == "understudy_jobs"
        for sample in family.samples
    }
    assert counts == {"succeeded": 2}


async def test_models_beyond_a_number_share_a_series_and_no_counter_becomes_less(
    store: Store, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "SERIES_MAX", 3)
    worker = await new_worker(store)
    await scraped(http)
    before: Counter[str] = Counter()
    for round_no in range(2):
        _, ids = await open_batch(store, 8)
        jobs = await store.claims.start(worker, ids)
        asked = [replace(call(job), model=f"name-{5 * round_no + number}") for number, job in enumerate(jobs)]
        answered = [replace(succeeded(job), attempts=[each]) for job, each in zip(jobs, asked, strict=True)]
        await store.claims.settle(worker, answered)
        seen = Counter[str]()
        for (name, labels), value in (await scraped(http)).items():
            if name == "understudy_attempts_total":
                seen[dict(labels)["model"]] += int(value)
        assert len(seen) == 4
        assert seen.total() == 8 * (round_no + 1), "each call is counted somewhere"
        assert all(seen[model] >= count for model, count in before.items())
        before = seen
    assert monitoring.OTHERS in before


async def test_requests_are_measured_by_route_and_not_by_path(http: httpx.AsyncClient) -> None:
    await http.get("/healthz")
    await http.get("/no/such/place")
    seen = await scraped(http)
    routes = {dict(labels)["route"] for name, labels in seen if name == "understudy_http_request_seconds_count"}
    assert routes == {"/healthz", "none"}
