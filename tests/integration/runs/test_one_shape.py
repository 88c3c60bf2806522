"""Jobs, batches, calls, providers and deliveries have one JSON shape each: over HTTP, with `--json`, in webhooks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from api_help import Served, bearer, key_for, served
from commands import type_command
from ledger_help import HOUR_S, failed, new_worker, open_batch, run_all, singles, sqlite_ledger, succeeded
from pydantic import TypeAdapter
from webhook_help import Receiver, receiver

from understudy.models.api_keys import Scope
from understudy.models.config.catalog import NO_KEY
from understudy.models.config.settings import ApiSettings, Settings, WebhookSettings, load_settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.wait_reasons import WORKER
from understudy.models.objects.administration import ActObject, KeyObject
from understudy.models.objects.attempt import AttemptList, AttemptObject, AttemptSummary
from understudy.models.objects.batch import BatchList, BatchObject
from understudy.models.objects.job import JobList, JobObject
from understudy.models.objects.provider import ProviderList, ProviderObject
from understudy.models.objects.webhook import BatchEvent, DeliveryObject, EndpointObject, JobEvent
from understudy.models.store import Store
from understudy.models.webhook_events import EVENTS
from understudy.worker.webhooks.delivery import Deliverer
from understudy.worker.webhooks.sender import Sender

PUBLIC_URL = "https://jobs.example.org"
CONFIG = f"""
[api]
public_url = "{PUBLIC_URL}"

[providers.one]
base_url = "http://127.0.0.1:9/v1"
models = ["m"]
prices.m = {{ input = 0, output = 0 }}
"""
LOOPBACK = WebhookSettings(allow_networks=("127.0.0.0/8",))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with sqlite_ledger(tmp_path) as opened:
        yield opened


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Served]:
    config = tmp_path / "understudy.toml"
    config.write_text(CONFIG)
    async with served(store, time.time, load_settings(config, {})) as opened:
        yield opened


@pytest.fixture
async def batch_id(store: Store) -> str:
    """A batch of three lines: one answered, one failed, one waiting."""
    batch_id, ids = await open_batch(store, 3, metadata={"flow": "7"})
    worker = await new_worker(store)
    answered, refused = await store.claims.start(worker, ids[:2])
    await store.claims.settle(worker, [succeeded(answered), failed(refused, FailureClass.CONTEXT_LENGTH)])
    await store.workers.remove(worker)
    return batch_id


async def over_http(api: Served, path: str) -> Any:
    key = await key_for(api.context.store, Scope.READ, Scope.ADMIN)
    async with api.client() as http:
        answer = await http.get(path, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def webhooks(store: Store, there: Receiver) -> dict[str, Any]:
    """The delivered bodies, by the id of their job or batch."""
    settings = Settings(api=ApiSettings(public_url=PUBLIC_URL), webhooks=LOOPBACK)
    async with Sender(LOOPBACK, 4, deadline_s=5) as sender:
        each = Deliverer("worker_1", store, settings, sender, time.time, Random(1))
        await each.pass_once()
        await each.idle()
    assert all(is_whole(JobEvent, got.event) for got in there.got)
    return {got.event["data"]["id"]: got.event["data"] for got in there.got}


async def typed(folder: Path, *words: str, code: int = 0) -> list[Any]:
    """The documents that `understudy WORDS --json` prints."""
    whole = [*words, "--json", "--data", str(folder), "--config", str(folder / "understudy.toml")]
    done = await asyncio.to_thread(type_command, *whole, folder=folder, environment={})
    assert done.returncode == code, done.said
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_whole(shape: Any, document: Any) -> bool:
    """Whether the document has all fields of the shape, of their types, and no others."""
    checked = TypeAdapter(shape)
    return bool(checked.dump_python(checked.validate_json(json.dumps(document), strict=True), mode="json") == document)


async def test_a_call_is_one_document(api: Served, tmp_path: Path, batch_id: str) -> None:
    listed = await over_http(api, "/v1/attempts")
    assert is_whole(AttemptList, listed) and len(listed["data"]) == 2
    assert await typed(tmp_path, "attempts", batch_id) == listed["data"][::-1]  # a terminal shows the newest last
    jobs = (await over_http(api, "/v1/jobs"))["data"]
    of_jobs = [call for job in jobs for call in (await over_http(api, f"/v1/jobs/{job['id']}"))["attempts"]]
    assert sorted(of_jobs, key=lambda call: str(call["id"])) == listed["data"][::-1]


async def test_a_job_is_one_document(api: Served, store: Store, tmp_path: Path) -> None:
    async with receiver() as there:
        ended = await singles(store, 2, callback_url=there.url, metadata={"flow": "7"})
        waits, delayed = await singles(store, 1), await singles(store, 1, not_before=time.time() + HOUR_S)
        worker = await new_worker(store)
        answered, refused = await store.claims.start(worker, ended)
        await store.claims.settle(worker, [succeeded(answered), failed(refused, FailureClass.CONTEXT_LENGTH)])
        told = await webhooks(store, there)
    for job_id in (*ended, *waits, *delayed):
        seen = await over_http(api, f"/v1/jobs/{job_id}")
        assert is_whole(JobObject, seen) and seen["links"]["self"] == f"{PUBLIC_URL}/v1/jobs/{job_id}"
        (typed_one,) = await typed(tmp_path, "status", job_id)
        assert {**typed_one, "waiting": None} == {**seen, "waiting": None}  # HTTP checks it after some seconds
    results = {answered.id: {"answer": "yes"}, refused.id: None}
    for job_id in ended:
        seen = await over_http(api, f"/v1/jobs/{job_id}")
        whole = {**seen, "result": results[job_id], "result_url": seen["links"]["result"]}
        assert told[job_id] == whole and is_whole(JobObject, whole)
        assert await typed(tmp_path, "watch", job_id, code=int(job_id == refused.id)) == [whole]
    listed = await over_http(api, "/v1/jobs?order=asc")
    assert is_whole(JobList, listed) and [each["id"] for each in listed["data"]] == [*ended, *waits, *delayed]
    without_calls = {name: value for name, value in seen.items() if name != "attempts"}
    assert listed["data"][1] == without_calls


async def test_a_batch_is_one_document(api: Served, store: Store, tmp_path: Path, batch_id: str) -> None:
    await store.batch_lifecycle.pause(batch_id, "lunch")
    (waits, _) = await open_batch(store, 1)
    (seen, paused) = [unrated(await over_http(api, f"/v1/batches/{each}")) for each in (waits, batch_id)]
    assert seen["understudy"]["waiting"]["hold"] == WORKER and seen["request_counts"]["total"] == 1
    assert paused["understudy"]["paused"] == "lunch" and paused["understudy"]["counts"]["failed"] == 1
    listed = await over_http(api, "/v1/batches")
    assert is_whole(BatchList, listed)
    assert [unrated(each) for each in listed["data"]] == [seen, paused]
    assert [unrated(each) for each in await typed(tmp_path, "status")] == [seen, paused]
    for each in (seen, paused):
        assert [unrated(typed_one) for typed_one in await typed(tmp_path, "status", each["id"])] == [each]
    (changed,) = await typed(tmp_path, "cancel", waits)
    assert is_whole(BatchObject, changed) and changed["status"] == "cancelled"


def unrated(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without its rate, which changes with each look."""
    return {**batch, "understudy": {**batch["understudy"], "rate_per_s": 0.0}}


async def test_a_provider_is_one_document_and_tenants_do_not_see_all_of_it(
    api: Served, store: Store, tmp_path: Path
) -> None:
    await store.credentials.set_aside("one", NO_KEY.name, "", FailureClass.CREDENTIAL, "wrong key sk-123", "")
    seen = await over_http(api, "/v1/providers")
    (printed,) = await typed(tmp_path, "providers")
    assert is_whole(ProviderList, seen) and is_whole(ProviderObject, printed)
    (over,) = seen["data"]
    assert (over["live"], printed["live"], over["state"], printed["state"]) == (True, False, "disabled", "disabled")
    assert printed.keys() - over.keys() == {"base_url"} and "127.0.0.1" not in str(seen)
    assert printed["disabled"] == [{**over["disabled"][0], "reason": "wrong key sk-123"}]


async def test_a_delivery_and_its_endpoint_are_one_document(api: Served, store: Store, tmp_path: Path) -> None:
    await store.webhooks.add_endpoint("default", "https://in.example.org", ["batch.*"], None, actor="test")
    async with receiver() as there:
        (job_id,) = await singles(store, 1, callback_url=there.url)
        await run_all(store, await new_worker(store), [job_id])
        await webhooks(store, there)
    for path, words, shape in (
        ("/v1/webhooks/deliveries", ("webhooks", "deliveries"), DeliveryObject),
        ("/v1/webhooks/endpoints", ("webhooks", "endpoints", "list"), EndpointObject),
    ):
        (seen,) = (await over_http(api, path))["data"]
        assert is_whole(shape, seen) and await typed(tmp_path, *words) == [seen]


async def test_a_key_and_an_action_are_one_document(api: Served, tmp_path: Path) -> None:
    expiring = await typed(tmp_path, "keys", "create", "--name", "x", "--expires", "1d")
    listed = await over_http(api, "/v1/keys")
    assert all(is_whole(KeyObject, each) for each in listed["data"]) and expiring[0].pop("key")
    assert expiring[0] in listed["data"] and await typed(tmp_path, "keys", "list") == listed["data"]
    acts = await over_http(api, "/v1/audit")
    assert acts["data"] and all(is_whole(ActObject, each) for each in acts["data"])
    assert await typed(tmp_path, "audit") == acts["data"][::-1]


SCHEMAS = [
    ("get", "/v1/attempts", 200, "AttemptList"),
    ("post", "/v1/batches", 200, "BatchObject"),
    ("get", "/v1/batches", 200, "BatchList"),
    ("get", "/v1/batches/{batch_id}", 200, "BatchObject"),
    ("post", "/v1/batches/{batch_id}/retry", 200, "BatchObject"),
    ("get", "/v1/providers", 200, "ProviderList"),
    ("get", "/v1/webhooks/deliveries", 200, "DeliveryList"),
    ("get", "/v1/webhooks/endpoints/{endpoint_id}", 200, "EndpointObject"),
    ("post", "/v1/jobs", 202, "JobObject"),
    ("post", "/v1/jobs", 200, "JobObject"),
    ("post", "/v1/jobs:batch", 200, "SubmittedJobs"),
    ("get", "/v1/jobs", 200, "JobList"),
    ("get", "/v1/jobs/{job_id}", 200, "JobObject"),
    ("get", "/v1/jobs/{job_id}/result", 202, "JobObject"),
    ("delete", "/v1/jobs/{job_id}", 200, "JobObject"),
    ("post", "/v1/jobs/{job_id}/ack", 200, "JobObject"),
    ("post", "/v1/chat/completions", 202, "JobObject"),
]


@pytest.mark.parametrize(("method", "path", "status", "schema"), SCHEMAS)
async def test_generated_clients_get_types(api: Served, method: str, path: str, status: int, schema: str) -> None:
    document = api.app.openapi()
    answer = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]
    assert answer["schema"] == {"$ref": f"#/components/schemas/{schema}"}
    assert "object" in document["components"]["schemas"][schema]["required"]


async def test_the_document_has_the_bodies_of_webhooks(api: Served) -> None:
    document = api.app.openapi()
    for name, shape in (("job", JobEvent), ("batch", BatchEvent)):
        body = document["webhooks"][name]["post"]["requestBody"]["content"]["application/json"]
        assert body["schema"] == {"$ref": f"#/components/schemas/{shape.__name__}"}
    types = (*get_args(JobEvent.__annotations__["type"]), *get_args(BatchEvent.__annotations__["type"]))
    assert types == EVENTS


def test_what_results_keep_of_a_call_are_fields_of_it() -> None:
    kept, whole = AttemptSummary.__annotations__, AttemptObject.__annotations__
    assert kept.items() <= whole.items()
