"""No tenant sees or changes another's objects on any route, and keys do no more than their scopes allow.

The routes are those of the application. A route that is added later is tried as well, or fails these tests until they
know how to fill in its path.
"""

import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from api_help import Served, bearer, key_for, served, walked
from ledger_help import HOUR_S, failed, new_jobs, new_worker, singles, succeeded

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.store import Store
from understudy.models.webhook_signing import SECRET_READ
from understudy.producer.web.rendering import PageRoute

SETTINGS = {"providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}}
JOB = {"model": "lead/large", "messages": [{"role": "user", "content": "hello"}]}
LINE = (
    b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions",'
    b'"body":{"model":"lead/large","messages":[{"role":"user","content":"x"}]}}\n'
)

OPEN_TO_ALL = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
"""The routes that show no tenant's objects. Metrics are open on the server's own machine only."""

SHARED = {"/v1/models", "/v1/models/{model:path}", "/v1/providers"}
"""What the configuration names, and how the fleet stands with it, is the same for all tenants."""

OWN_PAGES = {
    "/v1/files",
    "/v1/batches",
    "/v1/keys",
    "/v1/audit",
    "/v1/tenant",
    "/v1/webhooks/endpoints",
    "/v1/webhooks/secret",
    "/v1/webhooks/deliveries",
    "/v1/jobs",
    "/v1/attempts",
}
"""What is asked for without an id, and shows the caller's own."""

FOR_ADMINISTRATORS = ("/v1/keys", "/v1/audit", "/v1/webhooks", "/v1/providers", "/v1/tenant")

PACE = re.compile(rb'"(rate|eta)":[^,}]+,')
"""The pace of a batch falls by itself as time passes."""

Route = tuple[str, str]


def routes_of(app: Any) -> set[Route]:
    """Method and path of each route, including those that the documentation leaves out. Those of the web page are tried
    in `test_web_access`."""
    ours = [route for route in walked(app.routes) if not isinstance(route, PageRoute)]
    found = {(method, route.path) for route in ours for method in route.methods - {"HEAD"}}
    documented = {
        (method.upper(), path) for path, operations in app.openapi()["paths"].items() for method in operations
    }
    assert documented <= {(method, path.replace(":path}", "}")) for method, path in found}
    return {(method, path) for method, path in found if not path.startswith("/try/")}


def parameters_of(app: Any, path: str) -> list[str]:
    """The names of a list's filters."""
    return [each["name"] for each in app.openapi()["paths"][path]["get"].get("parameters", []) if each["in"] == "query"]


@dataclass
class Stage:
    """Tenant `a` owns one object of each kind; `a` and `b` are the administrators of two tenants."""

    api: Served
    a: httpx.AsyncClient
    b: httpx.AsyncClient
    owned: Mapping[str, list[str]]
    """Ids by the name that they have in a path."""
    hidden: list[str]
    """All that no answer to the other tenant may hold."""

    def paths(self, path: str) -> list[str]:
        """The path with each id of tenant `a` that fits there."""
        (name,) = re.findall(r"{(\w+)}", path)
        assert name in self.owned, f"a route has '{name}' in its path: make such an object for tenant a in this test"
        return [path.replace(f"{{{name}}}", each) for each in self.owned[name]]


@pytest.fixture
async def stage(store: Store, tmp_path: Path) -> AsyncIterator[Stage]:
    settings = Settings.model_validate({**SETTINGS, "data": tmp_path})
    async with served(store, time.time, settings) as api:
        key_a, key_b = [await key_for(store, Scope.ADMIN, tenant=tenant) for tenant in ("a", "b")]
        async with api.client() as a, api.client() as b:
            a.headers.update({"Authorization": f"Bearer {key_a}"})
            b.headers.update({"Authorization": f"Bearer {key_b}"})
            owned = await _objects(store, a)
            (key_id,) = [each.id for each in await store.api_keys.listed("a")]
            owned["key_id"] = [key_id]
            secret = (await a.get("/v1/webhooks/secret")).json()["secret"]
            acts = [each["id"] for each in await store.audit.entries("a")]
            calls = [each["id"] for each in await store.jobs.attempts(tenant="a")]
            assert calls and acts and all(owned.values())
            hidden = [*(each for ids in owned.values() for each in ids), secret, *acts, *calls]
            yield Stage(api, a, b, owned, hidden)


async def _objects(store: Store, a: httpx.AsyncClient) -> dict[str, list[str]]:
    made = await a.post("/v1/webhooks/endpoints", json={"url": "https://hooks.example.com/a"})
    upload = await a.post("/v1/files", files={"file": ("a.jsonl", LINE)}, data={"purpose": "batch"})
    assert (made.status_code, upload.status_code) == (201, 200)
    waiting = await a.post("/v1/jobs", json=JOB)
    (done,) = await singles(store, 1, tenant="a")
    worker = await new_worker(store)
    await store.claims.settle(
        worker, [replace(succeeded(each), tenant="a") for each in await store.claims.start(worker, [done])]
    )
    ended, ids = await _batch(store)
    first, second = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [replace(each, tenant="a") for each in (succeeded(first), failed(second))])
    await store.batch_lifecycle.close_finished()
    running, _ = await _batch(store)
    files = [each["id"] for each in (await a.get("/v1/files")).json()["data"]]
    assert len(files) == 3
    return {
        "file_id": files,
        "batch_id": [ended, running],
        "job_id": [waiting.json()["id"], done, *ids],
        "endpoint_id": [made.json()["id"]],
        "delivery_id": [each["id"] for each in await store.webhooks.deliveries("a")],
    }


async def _batch(store: Store) -> tuple[str, list[str]]:
    """A batch of tenant `a` with two jobs."""
    batch_id = new_id("batch")
    await store.intake.create_batch(NewBatch(batch_id, tenant="a", expires_at=await store.now() + HOUR_S))
    jobs = await new_jobs(store, 2, tenant="a")
    await store.intake.add_jobs(batch_id, jobs)
    await store.intake.open_batch(batch_id, len(jobs))
    return batch_id, [each.id for each in jobs]


async def test_what_is_another_tenants_does_not_exist_on_any_route(stage: Stage) -> None:
    tried = 0
    before = await _seen(stage)
    for method, path in sorted(routes_of(stage.api.app)):
        if "{" not in path or path in SHARED:
            continue
        for each in stage.paths(path):
            began = time.monotonic()
            answer = await stage.b.request(method, each, params={"wait": "20"})
            assert answer.status_code == 404, f"{method} {each}: {answer.status_code} {answer.text}"
            assert answer.json()["error"]["code"] == "not_found", f"{method} {each}"
            assert time.monotonic() - began < 10, f"{method} {each} lets others wait for it"
            tried += 1
    assert tried > 30
    assert await _seen(stage) == before, "another tenant's requests changed something"


async def _seen(stage: Stage) -> dict[str, Any]:
    """Every object of tenant `a`, as the tenant sees it. This also shows that the ids are right."""
    found = {}
    for method, path in sorted(routes_of(stage.api.app)):
        if method == "GET" and "{" in path and path not in SHARED:
            for each in stage.paths(path):
                answer = await stage.a.get(each)
                assert answer.status_code != 404, f"{each}: {answer.text}"
                found[each] = (answer.status_code, PACE.sub(b"", answer.content))
    for path in sorted(OWN_PAGES):
        found[path] = orjson.loads(PACE.sub(b"", (await stage.a.get(path)).content))
    acts = found["/v1/audit"]["data"]  # looking at the secret, as this does, is recorded as well
    found["/v1/audit"]["data"] = [each for each in acts if each["action"] != SECRET_READ]
    return found


async def test_no_list_shows_what_is_another_tenants_whatever_it_is_asked_for(stage: Stage) -> None:
    for method, path in sorted(routes_of(stage.api.app)):
        if method != "GET" or "{" in path or path in OPEN_TO_ALL | SHARED:
            continue
        assert path in OWN_PAGES, f"{path} is new: say in this test whose objects it shows"
        asked: list[dict[str, str]] = [{}, {"limit": "100"}]
        for name in parameters_of(stage.api.app, path):
            if name.endswith("_id") or name in ("after", "before", "key"):
                asked += [{name: each} for each in stage.hidden if each.replace("_", "").isalnum()]
        for words in asked:
            answer = await stage.b.get(path, params=words)
            assert answer.status_code in (200, 400), f"{path} {words}: {answer.status_code}"
            said = answer.text if "error" not in answer.json() else ""
            assert not [each for each in stage.hidden if each in said], f"{path} {words} shows another tenant's"


async def test_what_all_tenants_share_names_nothing_of_any_of_them(stage: Stage) -> None:
    """Jobs of tenant `a` were accepted and called providers; those objects have no ids of their own here."""
    for path in sorted(SHARED):
        if "{" not in path:
            answer = await stage.b.get(path)
            assert answer.status_code == 200
            assert not [each for each in stage.hidden if each in answer.text], path


async def test_a_batch_cannot_be_made_of_another_tenants_file(stage: Stage) -> None:
    for file_id in stage.owned["file_id"]:
        words = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        answer = await stage.b.post("/v1/batches", json=words)
        assert answer.status_code == 404 and answer.json()["error"]["param"] == "input_file_id"


async def test_the_names_of_requests_are_each_tenants_own(stage: Stage) -> None:
    headers = {"Idempotency-Key": "same"}
    made = [(await each.post("/v1/jobs", json=JOB, headers=headers)).json()["id"] for each in (stage.a, stage.b)]
    assert made[0] != made[1]
    other = {**JOB, "metadata": {"of": "b"}}
    assert (await stage.b.post("/v1/jobs", json=other, headers=headers)).status_code == 422
    headers = {"Idempotency-Key": "many"}
    lists = [
        (await each.post("/v1/jobs:batch", json={"jobs": [JOB]}, headers=headers)).json() for each in (stage.a, stage.b)
    ]
    assert lists[0]["data"][0]["id"] != lists[1]["data"][0]["id"]


async def test_a_lost_answer_is_not_found_again_in_another_tenants_batches(stage: Stage) -> None:
    """The SDK's repeated request is recognised by its content, among the tenant's own requests only."""
    (file_id, *_) = [each for each in stage.owned["file_id"] if "batch" not in each]
    words = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    repeated = {"x-stainless-retry-count": "1", "Idempotency-Key": "batch"}
    assert (await stage.a.post("/v1/batches", json=words, headers=repeated)).status_code == 200
    assert (await stage.b.post("/v1/batches", json=words, headers=repeated)).status_code == 404
    del repeated["Idempotency-Key"]
    assert (await stage.b.post("/v1/batches", json=words, headers=repeated)).status_code == 404


async def test_without_a_key_nothing_is_served_once_there_is_one(stage: Stage) -> None:
    async with stage.api.client() as http:
        for method, path in sorted(routes_of(stage.api.app)):
            answer = await http.request(method, re.sub(r"{\w+(:path)?}", "x", path))
            assert (answer.status_code == 401) != (path in OPEN_TO_ALL), f"{method} {path}: {answer.status_code}"


async def test_keys_reach_what_their_scope_allows_and_nothing_else(store: Store, stage: Stage) -> None:
    reads, submits = [bearer(await key_for(store, scope, tenant="a")) for scope in (Scope.READ, Scope.SUBMIT)]
    async with stage.api.client() as http:
        for method, path in sorted(routes_of(stage.api.app)):
            if path in OPEN_TO_ALL:
                continue
            place = re.sub(r"{\w+(:path)?}", "x", path)
            for_administrators = path.startswith(FOR_ADMINISTRATORS)
            by_reader = (await http.request(method, place, headers=reads)).status_code
            by_submitter = (await http.request(method, place, headers=submits)).status_code
            assert (by_reader == 403) == (method != "GET" or for_administrators), f"{method} {path}: {by_reader}"
            assert (by_submitter == 403) == for_administrators, f"{method} {path}: {by_submitter}"
