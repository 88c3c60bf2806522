"""Data rules over HTTP: of a request, a batch and a tenant, all kept with the job or refused with a sentence."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from api_help import Clock, Served, bearer, key_for, served

from models.api_keys import Scope
from models.chain import CHAT, Chain
from models.ids import new_id
from models.settings import Settings
from models.store import Store
from models.tenants import TenantLimits
from producer.api.tenant_rules import KEPT_S, TenantRules
from producer.filling import Filler

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "eu": {"base_url": "http://127.0.0.1:1/v1", "tags": {"region": "eu", "zdr": True}},
            "us": {"base_url": "http://127.0.0.1:1/v1", "tags": {"region": "us"}},
        },
        "chains": {
            "default": {"steps": ["us/m", "eu/m"]},
            "ab": {"steps": [["us/a", "eu/b"]]},
        },
    }
)
MESSAGES = [{"role": "user", "content": "hello"}]


def line(custom_id: str = "1", **body: Any) -> bytes:
    row = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"messages": MESSAGES, **body}}
    return orjson.dumps(row) + b"\n"


@dataclass
class Room:
    api: Served
    store: Store
    http: httpx.AsyncClient
    clock: Clock

    async def chain_of(self, job_id: str) -> Chain:
        view = await self.store.job_view(job_id)
        assert view is not None
        return await self.store.get_chain(view["chain_id"])

    async def accepted(self, **body: Any) -> Chain:
        answer = await self.http.post("/v1/jobs", json={"messages": MESSAGES, **body})
        assert answer.status_code == 202, answer.text
        return await self.chain_of(answer.json()["id"])

    async def refused(self, path: str = "/v1/jobs", **body: Any) -> dict[str, Any]:
        document = body if path == "/v1/batches" else {"messages": MESSAGES, **body}
        answer = await self.http.post(path, json=document)
        assert answer.status_code == 400, answer.text
        error: dict[str, Any] = answer.json()["error"]
        return error

    async def batch(self, content: bytes, **words: Any) -> dict[str, Any]:
        """A batch of these lines as it is once it was filled."""
        file_id = new_id("file")

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        blobs = self.api.context.blobs
        size, lines = await blobs.put(file_id, chunks())
        await self.store.add_file(file_id, "acme", "in.jsonl", size, lines)
        request = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **words}
        answer = await self.http.post("/v1/batches", json=request)
        assert answer.status_code == 200, answer.text
        filler = Filler(SETTINGS, self.store, blobs.read, "filler")
        while await filler.step():
            continue
        shown = await self.http.get(f"/v1/batches/{answer.json()['id']}")
        batch: dict[str, Any] = shown.json()
        return batch

    async def set_rules(self, **rules: Any) -> None:
        await self.store.set_tenant(TenantLimits("acme", **rules), actor="test")
        self.clock.now += KEPT_S


@pytest.fixture
async def room(store: Store) -> AsyncIterator[Room]:
    clock = Clock(1_000.0)
    async with served(store, lambda: 1_000_000.0, SETTINGS) as api:
        api.context.rules = TenantRules(clock)
        headers = bearer(await key_for(store, Scope.SUBMIT, tenant="acme"))
        async with api.client() as http:
            http.headers.update(headers)
            yield Room(api, store, http, clock)


async def test_the_rules_of_a_request_are_kept_with_its_job(room: Room) -> None:
    chain = await room.accepted(require={"region": "EU"}, forbid={"zdr": False}, order="cheapest")
    assert (chain.require, chain.forbid, chain.order) == ({"region": ("eu",)}, {"zdr": ("false",)}, "cheapest")
    assert [str(step) for step in chain.steps] == ["us/m", "eu/m"]


async def test_a_request_that_no_step_may_serve_is_refused_in_one_sentence_and_leaves_nothing(room: Room) -> None:
    for path in ("/v1/jobs", "/v1/chat/completions"):
        error = await room.refused(path, require={"region": "ch"})
        assert (error["code"], error["param"]) == ("no_step_allowed", "require")
        assert "provider 'us' says region = us" in error["message"]
    assert await room.store.lanes() == []


async def test_a_misspelt_rule_does_not_vanish(room: Room) -> None:
    for word in ("requires", "forbids"):
        assert f"did you mean '{word[:-1]}'?" in (await room.refused(**{word: {"region": "eu"}}))["message"]


async def test_the_rules_of_a_tenant_hold_for_all_its_jobs_soon_after_they_were_set(room: Room) -> None:
    assert (await room.accepted()).require == {}
    await room.set_rules(require={"region": ("eu",)}, forbid={"region": ("us",)})
    assert (await room.accepted()).require == {"region": ("eu",)}
    both = await room.accepted(require={"region": ["eu", "us"], "zdr": True})
    assert (both.require, both.forbid) == ({"region": ("eu",), "zdr": ("true",)}, {"region": ("us",)})
    assert (await room.refused(model="us/m"))["code"] == "no_step_allowed"
    await room.set_rules()
    assert (await room.accepted(model="us/m")).require == {}


async def test_the_rules_of_a_tenant_are_not_anothers(room: Room) -> None:
    await room.set_rules(require={"region": ("eu",)})
    headers = bearer(await key_for(room.store, Scope.SUBMIT, tenant="other"))
    answer = await room.http.post("/v1/jobs", json={"messages": MESSAGES, "model": "us/m"}, headers=headers)
    assert answer.status_code == 202


async def test_a_batch_and_its_lines_and_its_tenant_say_rules_together(room: Room) -> None:
    await room.set_rules(forbid={"region": ("us",)})
    batch = await room.batch(line("1") + line("2", require={"region": "eu"}), require={"zdr": True}, order="fastest")
    assert batch["status"] == "in_progress"
    chains = {}
    async for job in room.store.unfinished(batch["id"]):
        view = await room.store.job_view(job.id)
        assert view is not None
        chains[view["custom_id"]] = await room.store.get_chain(view["chain_id"])
    assert chains["1"].require == {"zdr": ("true",)}
    assert chains["2"].require == {"zdr": ("true",), "region": ("eu",)}
    assert {chain.order for chain in chains.values()} == {"fastest"}
    assert all(chain.forbid == {"region": ("us",)} for chain in chains.values())


async def test_a_line_that_breaks_the_rules_of_its_tenant_fails_the_batch_by_its_number(room: Room) -> None:
    await room.set_rules(require={"region": ("eu",)})
    batch = await room.batch(line("1") + line("2", model="us/m"))
    assert batch["status"] == "failed"
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["line"]) == ("no_step_allowed", 2)


async def test_a_batch_whose_chain_breaks_its_rules_is_refused_before_its_lines_are_read(room: Room) -> None:
    words = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    error = await room.refused("/v1/batches", **words, chain="default", require={"region": "ch"})
    assert error["code"] == "no_step_allowed"
    assert (await room.refused("/v1/batches", **words, forbid={"region": []}))["param"] == "forbid"


async def test_rules_of_a_batch_without_a_model_are_judged_by_its_lines(room: Room) -> None:
    """Also when the provider that stands first in the alphabet keeps none of them."""
    batch = await room.batch(line("1", model="us/m"), require={"region": "us"})
    assert batch["status"] == "in_progress"


async def test_jobs_without_a_name_are_spread_over_the_sides_and_named_ones_stay(room: Room) -> None:
    leads = {str((await room.accepted(model="ab")).steps[0]) for _ in range(20)}
    assert leads == {"us/a", "eu/b"}
    for name in ("x", "y"):
        assert len({str((await room.accepted(model="ab", custom_id=name)).steps[0]) for _ in range(3)}) == 1
