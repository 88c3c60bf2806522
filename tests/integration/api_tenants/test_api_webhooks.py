"""Endpoints, secrets and deliveries over HTTP and through the command line's statements, separate for each tenant."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_help import application
from fakeredis import FakeAsyncRedis
from ledger_help import new_worker, run_all, singles

from understudy.models.api_keys import Scope, new_key
from understudy.models.config.settings import Settings
from understudy.models.store import Store
from understudy.producer.api.context import Context
from understudy.producer.api.files.blobs import open_blobs

URL = "https://hooks.example.com/x"


@pytest.fixture
async def app_client(store: Store, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(data=tmp_path)
    context = Context(settings, store, FakeAsyncRedis(), lambda: 1_800_000_000.0, open_blobs(settings))
    with application(nullcontext(context)) as app:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1/v1/webhooks") as client,
        ):
            yield client


async def key_of(store: Store, tenant: str, *scopes: Scope) -> dict[str, str]:
    made = new_key()
    await store.api_keys.add(made, tenant=tenant, name="test", scopes=scopes, expires_at=None, actor="test")
    return {"authorization": f"Bearer {made.text}"}


async def ended(store: Store, tenant: str = "default") -> str:
    (job_id,) = await singles(store, 1, tenant=tenant)
    await run_all(store, await new_worker(store), [job_id])
    return job_id


async def test_an_endpoint_shows_its_secret_when_it_is_made_and_never_again(
    store: Store, app_client: httpx.AsyncClient
) -> None:
    made = await app_client.post("/endpoints", json={"url": URL, "events": ["job.*"], "match": {"flow": "7"}})
    assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
    document = made.json()
    secret = document.pop("secret")
    assert secret.startswith("whsec_") and await store.webhooks.signing_secrets(document["id"]) == [secret]
    assert (await app_client.get(f"/endpoints/{document['id']}")).json() == document
    listed = await app_client.get("/endpoints")
    assert listed.json()["data"] == [document] and secret not in listed.text


async def test_a_rotated_endpoint_signs_with_both_secrets(store: Store, app_client: httpx.AsyncClient) -> None:
    made = (await app_client.post("/endpoints", json={"url": URL})).json()
    new = (await app_client.post(f"/endpoints/{made['id']}/rotate")).json()["secret"]
    assert await store.webhooks.signing_secrets(made["id"]) == [new, made["secret"]]


async def test_the_secret_of_callback_urls_stays_until_it_is_rotated(app_client: httpx.AsyncClient) -> None:
    first = (await app_client.get("/secret")).json()["secret"]
    assert (await app_client.get("/secret")).json()["secret"] == first
    new = (await app_client.post("/secret/rotate")).json()["secret"]
    assert new != first and (await app_client.get("/secret")).json()["secret"] == new


async def test_a_deleted_endpoint_is_gone(app_client: httpx.AsyncClient) -> None:
    made = (await app_client.post("/endpoints", json={"url": URL})).json()
    assert (await app_client.delete(f"/endpoints/{made['id']}")).json()["deleted"] is True
    for answer in (
        await app_client.get(f"/endpoints/{made['id']}"),
        await app_client.delete(f"/endpoints/{made['id']}"),
        await app_client.post(f"/endpoints/{made['id']}/enable"),
        await app_client.post(f"/endpoints/{made['id']}/rotate"),
    ):
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "ftp://hooks.example.com"}, "url"),
        ({"url": "https://user:secret@hooks.example.com/"}, "url"),
        ({"url": URL, "events": ["job.begun"]}, "events"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "match": {"a": 1}}, "match.a"),
        ({"url": URL, "more": 1}, "more"),
    ],
)
async def test_a_wrong_endpoint_is_refused_with_the_field(
    app_client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    answer = await app_client.post("/endpoints", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param and "secret" not in answer.text


async def test_deliveries_are_listed_in_pages_and_filtered(store: Store, app_client: httpx.AsyncClient) -> None:
    made = (await app_client.post("/endpoints", json={"url": URL})).json()
    jobs = [await ended(store) for _ in range(3)]
    first = (await app_client.get("/deliveries", params={"limit": 2})).json()
    assert [each["object_id"] for each in first["data"]] == jobs[:0:-1] and first["has_more"] is True
    second = (await app_client.get("/deliveries", params={"limit": 2, "after": first["last_id"]})).json()
    assert [each["object_id"] for each in second["data"]] == jobs[:1] and second["has_more"] is False
    for words, count in (
        ({"object_id": jobs[1]}, 1),
        ({"endpoint_id": made["id"]}, 3),
        ({"endpoint_id": "none"}, 0),
        ({"state": "dead"}, 0),
        ({"state": "pending"}, 3),
    ):
        assert len((await app_client.get("/deliveries", params=words)).json()["data"]) == count
    assert (await app_client.get("/deliveries", params={"state": "lost"})).status_code == 400
    assert (await app_client.get("/deliveries", params={"after": "\0"})).status_code == 400


async def test_a_dead_delivery_is_replayed_unless_its_endpoint_is_disabled(
    store: Store, app_client: httpx.AsyncClient
) -> None:
    made = (await app_client.post("/endpoints", json={"url": URL})).json()
    await ended(store)
    await store.webhooks.disable_endpoint(made["id"], "it answered 410 Gone")
    (row,) = (await app_client.get("/deliveries")).json()["data"]
    assert row["state"] == "dead" and row["next_at"] is None
    refused = await app_client.post(f"/deliveries/{row['id']}/replay")
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "endpoint_disabled"
    assert (await app_client.post(f"/endpoints/{made['id']}/enable")).json()["disabled"] is None
    replayed = await app_client.post(f"/deliveries/{row['id']}/replay")
    assert (replayed.json()["id"], replayed.json()["state"], replayed.json()["tries"]) == (row["id"], "pending", 0)
    assert (await app_client.post("/deliveries/evt_none/replay")).status_code == 404


async def test_only_administrators_and_only_their_own(store: Store, app_client: httpx.AsyncClient) -> None:
    ours, theirs = await key_of(store, "ours", Scope.ADMIN), await key_of(store, "theirs", Scope.ADMIN)
    reader = await key_of(store, "ours", Scope.READ, Scope.SUBMIT)
    made = (await app_client.post("/endpoints", json={"url": URL}, headers=ours)).json()
    await ended(store, "ours")
    (row,) = (await app_client.get("/deliveries", headers=ours)).json()["data"]
    for method, path in (
        ("GET", f"/endpoints/{made['id']}"),
        ("DELETE", f"/endpoints/{made['id']}"),
        ("POST", f"/endpoints/{made['id']}/enable"),
        ("POST", f"/endpoints/{made['id']}/rotate"),
        ("POST", f"/deliveries/{row['id']}/replay"),
    ):
        assert (await app_client.request(method, path, headers=theirs)).status_code == 404
        assert (await app_client.request(method, path, headers=reader)).status_code == 403
    for path in ("/endpoints", "/deliveries"):
        assert (await app_client.get(path, headers=theirs)).json()["data"] == []
        assert (await app_client.get(path, headers=reader)).status_code == 403
    secrets = [(await app_client.get("/secret", headers=each)).json()["secret"] for each in (ours, theirs)]
    assert secrets[0] != secrets[1]


async def test_acts_leave_audit_rows_without_secrets(store: Store, app_client: httpx.AsyncClient) -> None:
    made = (await app_client.post("/endpoints", json={"url": URL})).json()
    await app_client.post(f"/endpoints/{made['id']}/rotate")
    await app_client.post(f"/endpoints/{made['id']}/enable")
    await app_client.delete(f"/endpoints/{made['id']}")
    acts = await store.audit.entries("default")
    actions = sorted(each["action"] for each in acts)
    assert actions == ["webhook.create", "webhook.enable", "webhook.remove", "webhook.rotate"]
    assert "whsec_" not in str(acts) and {each["subject"] for each in acts} == {made["id"]}
