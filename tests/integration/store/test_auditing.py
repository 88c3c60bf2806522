"""Who did what to what: acts over HTTP and on the command line, with their changes; refused keys, however many."""

import asyncio
import getpass
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_help import Clock, Served, bearer, key_for, served
from commands import Done, type_command
from ledger_help import new_worker, open_batch, run_all, singles

from understudy.models.api_keys import Scope, new_key, parts_of
from understudy.models.store import Store
from understudy.models.store import audit as auditing
from understudy.models.tenants import TenantLimits
from understudy.producer.api.access.keyring import MOST_NAMED, OTHERS, UNKNOWN, RejectedKeys
from understudy.producer.audit_actor import command_line


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Served]:
    async with served(store, time.time) as opened:
        yield opened


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await so():
            await asyncio.sleep(0.02)


async def acts_of(store: Store, action: str, tenant: str | None = None) -> list[dict[str, Any]]:
    return await store.audit.entries(tenant, action=action)


async def test_a_change_says_what_it_was_and_what_it_is(store: Store) -> None:
    await store.tenants.set_limits(TenantLimits("acme", 10, usd_per_month=5.0), actor="ada")
    await store.tenants.set_limits(TenantLimits("acme", 10, usd_per_month=9.0, allow=("one/m",)), actor="bob")
    await store.tenants.set_store_content("acme", "until_delivered", actor="key1")
    last, second, first = await store.audit.entries("acme")
    assert (first["actor"], first["old"], first["new"]) == (
        "ada",
        {"jobs_per_minute": None, "usd_per_month": None},
        {"jobs_per_minute": 10, "usd_per_month": 5.0},
    )
    assert (second["old"], second["new"]) == (
        {"usd_per_month": 5.0, "allow": None},
        {"usd_per_month": 9.0, "allow": ["one/m"]},
    )
    assert (last["old"], last["new"]) == ({"store_content": None}, {"store_content": "until_delivered"})


async def test_what_is_done_often_is_one_row_for_an_hour(store: Store) -> None:
    for times in (1, 5):
        await store.audit.record_repeated("key1", "acme", "webhook.secret.read", "tenant:acme", times)
    await store.audit.record_repeated("key2", "acme", "webhook.secret.read", "tenant:acme")
    other, first = await store.audit.entries("acme")
    assert (first["times"], other["times"], other["last_at"]) == (6, 1, None)
    assert first["last_at"] >= first["at"]


async def test_who_may_act_may_not_fill_the_ledger_by_acting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "ACTS_LATELY", auditing.select(auditing.func.count()).select_from(auditing._lately))
    monkeypatch.setattr(auditing, "MOST_IN_AN_HOUR", 3)
    for number in range(10):
        await store.audit.record("key1", "acme", "file.delete", f"file_{number}")
        await store.audit.record("command line: ada@here", "acme", "file.delete", f"file_{number}")
    await store.audit.record("key2", "acme", "file.delete", "file_x")
    acts = await acts_of(store, "file.delete")
    by_actor = {actor: [each["times"] for each in acts if each["actor"] == actor] for actor in ("key1", "key2")}
    assert by_actor == {"key1": [8, 1, 1], "key2": [1]}
    assert len([each for each in acts if each["actor"].startswith("command line")]) == 10


async def test_acts_over_http_name_the_key_and_what_changed(api: Served, store: Store) -> None:
    key = await key_for(store, Scope.ADMIN, tenant="acme")
    parts = parts_of(key)
    assert parts is not None
    batch_id, _ = await open_batch(store, 2, tenant="acme")
    async with api.client() as http:
        http.headers.update(bearer(key))

        async def post(path: str) -> httpx.Response:
            answer = await http.post(path)
            assert answer.status_code == 200, answer.text
            return answer

        for _ in range(3):
            assert (await http.get("/v1/webhooks/secret")).status_code == 200
        await http.patch("/v1/tenant", json={"store_content": "until_delivered"})
        made = (await http.post("/v1/webhooks/endpoints", json={"url": "https://hooks.example.com/x"})).json()
        await http.delete(f"/v1/webhooks/endpoints/{made['id']}")
        spare = (await http.post("/v1/keys", json={"name": "spare", "scopes": ["read"]})).json()
        await http.delete(f"/v1/keys/{spare['id']}")
        await post(f"/v1/batches/{batch_id}/pause")
        await post(f"/v1/batches/{batch_id}/resume?budget_usd=7")
        await post(f"/v1/batches/{batch_id}/cancel")
        shown = (await http.get("/v1/audit")).json()["data"]
    acts = {(each["action"], each["subject"]): each for each in shown if each["actor"] == parts[0]}
    assert acts["webhook.secret.read", "tenant:acme"]["times"] == 3
    assert acts["tenant.set", "acme"]["new"] == {"store_content": "until_delivered"}
    assert acts["webhook.create", made["id"]]["new"]["url"] == "https://hooks.example.com/x"
    assert acts["webhook.remove", made["id"]]["old"]["url"] == "https://hooks.example.com/x"
    assert acts["key.create", spare["id"]]["new"]["scopes"] == "read"
    assert acts["key.revoke", spare["id"]]["old"] == {"name": "spare", "scopes": "read"}
    resumed = acts["batch.resume", batch_id]
    assert (resumed["old"], resumed["new"]) == (
        {"paused": "paused by its owner", "budget_usd": None},
        {"paused": None, "budget_usd": 7.0},
    )
    assert {("batch.pause", batch_id), ("batch.cancel", batch_id)} <= acts.keys()
    assert made["secret"] not in str(shown) and spare["key"] not in str(shown)


async def test_what_ends_or_hands_over_single_jobs_is_on_record(api: Served, store: Store) -> None:
    key = await key_for(store, Scope.SUBMIT, tenant="acme")
    waits, ends = await singles(store, 2, tenant="acme")
    batch_id, lines = await open_batch(store, 1, tenant="acme")
    await run_all(store, await new_worker(store), [ends, *lines])
    await store.batch_lifecycle.close_finished()
    async with api.client() as http:
        http.headers.update(bearer(key))
        for _ in range(2):
            assert (await http.delete(f"/v1/jobs/{waits}")).status_code == 200
        assert (await http.delete(f"/v1/jobs/{ends}")).status_code == 200
        for path in (f"jobs/{ends}", f"batches/{batch_id}"):
            assert (await http.post(f"/v1/{path}/ack")).status_code == 200
    acts = [
        (each["action"], each["subject"], each["times"]) for each in await store.audit.entries("acme", actor=key[3:15])
    ]
    assert sorted(acts) == [("batch.ack", batch_id, 1), ("job.ack", ends, 1), ("job.cancel", waits, 1)]


async def test_refused_keys_are_on_record_and_never_repeated(api: Served, store: Store) -> None:
    admin = await key_for(store, Scope.ADMIN, tenant="acme")
    made = new_key()
    await store.api_keys.add(made, tenant="acme", name="old", scopes=[Scope.READ], actor="test")
    await store.api_keys.revoke(made.id, actor="test")
    guessed = f"us_{parts_of(admin)[0]}_{'0' * 40}"  # type: ignore[index]
    async with api.client(address="203.0.113.9") as http:
        for key in (made.text, guessed, new_key().text, "sk-somebodys-secret-0123456789"):
            assert (await http.get("/v1/models", headers=bearer(key))).status_code == 401

        async def written() -> bool:
            return sum(each["times"] for each in await acts_of(store, "key.refused")) == 4

        await until(written)
        seen = (await http.get("/v1/audit", headers=bearer(admin))).json()["data"]
    everything = await acts_of(store, "key.refused")
    assert {(each["actor"], each["subject"], each["tenant"], each["times"]) for each in everything} == {
        ("203.0.113.9", made.id, "acme", 1),
        ("203.0.113.9", parts_of(admin)[0], "acme", 1),  # type: ignore[index]
        ("203.0.113.9", UNKNOWN, "", 2),
    }
    assert "somebodys" not in str(everything)
    assert {each["subject"] for each in seen if each["action"] == "key.refused"} == {
        made.id,
        parts_of(admin)[0],  # type: ignore[index]
    }


async def test_a_flood_of_refused_keys_takes_a_few_rows(store: Store) -> None:
    clock = Clock(7_200.0)
    refused = RejectedKeys(clock)
    for number in range(5_000):
        refused.note(f"2001:db8::{number:x}", key_id=f"{number:012}")
        if number % 1_000 == 0:
            await refused.write(store)
    await refused.write(store)
    acts = await acts_of(store, "key.refused")
    assert len(acts) == MOST_NAMED + 1
    assert sum(each["times"] for each in acts) == 5_000
    assert {each["actor"]: each["times"] for each in acts}[OTHERS] == 5_000 - MOST_NAMED


def test_the_command_line_shows_who_did_what(tmp_path: Path) -> None:
    config = tmp_path / "understudy.toml"
    config.write_text('[providers.one]\nbase_url = "http://127.0.0.1:9/v1"\nprices.m = { input = 0, output = 0 }\n')

    def understudy(*words: str | Path, code: int = 0) -> Done:
        done = type_command(*words, "--data", tmp_path, "--config", config, folder=tmp_path, environment={})
        assert done.returncode == code, done.said
        return done

    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "model": "one/m"}\n')
    key_id = json.loads(understudy("keys", "create", "--name", "x", "--json").stdout)["id"]
    understudy("keys", "revoke", key_id)
    understudy("tenants", "set", "acme", "--usd-per-month", "10")
    understudy("tenants", "set", "acme", "--usd-per-month", "20")
    understudy("resume", "tenant:acme")
    understudy("webhooks", "secret")
    understudy("providers", "disable", "one", "--key", "none", "--reason", "rotated")
    understudy("providers", "enable", "one")
    batch_id = understudy("submit", tmp_path / "in.jsonl").stdout.strip()
    understudy("pause", batch_id, "--reason", "lunch")
    understudy("resume", batch_id)
    understudy("cancel", batch_id)
    understudy("prune", "--older-than", "30d")
    acts = [json.loads(line) for line in understudy("audit", "--json").stdout.splitlines()]
    assert [(each["action"], each["subject"]) for each in acts if each["action"] != "budget.grant"] == [
        ("key.create", key_id),
        ("key.revoke", key_id),
        ("tenant.set", "acme"),
        ("tenant.set", "acme"),
        ("webhook.secret.read", "tenant:default"),
        ("provider.disable", "one:none"),
        ("provider.enable", "one"),
        ("batch.pause", batch_id),
        ("batch.resume", batch_id),
        ("batch.cancel", batch_id),
        ("prune", "older than 30d"),
    ]
    assert {each["actor"] for each in acts} == {command_line()}
    assert getpass.getuser() in command_line() and command_line().startswith("command line: ")
    by_action = {each["action"]: each for each in acts}
    assert (by_action["tenant.set"]["old"], by_action["tenant.set"]["new"]) == (
        {"usd_per_month": 10.0},
        {"usd_per_month": 20.0},
    )
    granted = by_action["budget.grant"]
    assert (granted["old"], granted["new"]) == ({"may_spend_usd": 20.0}, {"may_spend_usd": 40.0})
    assert by_action["provider.enable"]["old"] == {"disabled": ["none/: credential"]}
    assert by_action["batch.resume"]["old"] == {"paused": "lunch"}
    shown = understudy("audit", "--tenant", "acme", "--since", "1h").stdout
    assert "usd_per_month=10.0" in shown and "usd_per_month=20.0" in shown and batch_id not in shown
    assert understudy("audit", "--action", "key.create", "--json").stdout.count("\n") == 1
    assert "No matching actions are on record" in understudy("audit", "--actor", "nobody").said
