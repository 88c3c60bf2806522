"""Data rules over HTTP: of a request, a batch and a tenant. All are stored with the job, or the request is refused."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from api_help import Clock, Served, bearer, key_for, served

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.routing.chain import CHAT, Chain
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.producer.api.context import RULES_KEPT_S, TenantRules
from understudy.producer.ingest.batch_filler import Filler

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
        view = await self.store.jobs.view(job_id)
        assert view is not None
        return await self.store.get_chain(view.chain_id)

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
        """A filled batch of these lines."""
        file_id = new_id("file")

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        blobs = self.api.context.blobs
        size, lines = await blobs.put(file_id, chunks())
        await self.store.files.add(file_id, "acme", "in.jsonl", size, lines)
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
        await self.store.tenants.set_limits(TenantLimits("acme", **rules), actor="test")
        self.clock.now += RULES_KEPT_S


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
        assert "provider 'us' has region = us" in error["message"]
    assert await room.store.planning.lanes() == []


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
    async for job in room.store.reruns.unfinished(batch["id"]):
        view = await room.store.jobs.view(job.id)
        assert view is not None
        chains[view.custom_id] = await room.store.get_chain(view.chain_id)
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
    """Even if the provider that comes first in the alphabet satisfies none of them."""
    batch = await room.batch(line("1", model="us/m"), require={"region": "us"})
    assert batch["status"] == "in_progress"


async def test_jobs_without_a_name_are_spread_over_the_sides_and_named_ones_stay(room: Room) -> None:
    leads = {str((await room.accepted(model="ab")).steps[0]) for _ in range(20)}
    assert leads == {"us/a", "eu/b"}
    for name in ("x", "y"):
        assert len({str((await room.accepted(model="ab", custom_id=name)).steps[0]) for _ in range(3)}) == 1


def refusal_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_tenant_may_use_what_it_is_allowed_and_nothing_else(room: Room) -> None:
    await room.set_rules(allow=("ab", "eu/m"))
    assert [str(step) for step in (await room.accepted(model="eu/m")).steps] == ["eu/m"]
    await room.accepted(chain="ab")
    for path, body in (
        ("/v1/jobs", {"messages": MESSAGES}),  # the chain `default`
        ("/v1/jobs", {"messages": MESSAGES, "model": "us/m"}),
        ("/v1/chat/completions", {"messages": MESSAGES, "model": "eu/m", "fallbacks": ["us/m"]}),
        ("/v1/embeddings", {"input": "x", "model": "us/m"}),
    ):
        assert refusal_of(await room.http.post(path, json=body)) == (403, "model_not_allowed")
    two = {"jobs": [{"messages": MESSAGES, "model": "us/m"}, {"messages": MESSAGES, "model": "eu/m"}]}
    refused, accepted = (await room.http.post("/v1/jobs:batch", json=two)).json()["data"]
    assert (refused["error"]["code"], accepted["error"]) == ("model_not_allowed", None)
    await room.set_rules()
    await room.accepted(model="us/m")


async def test_each_line_of_a_batch_is_held_against_what_its_tenant_may_use(room: Room) -> None:
    await room.set_rules(allow=("eu/m",))
    batch = await room.batch(line("1", model="eu/m") + line("2", model="us/m") + line("3", model="eu/m", models=["x"]))
    errors = batch["errors"]["data"]
    assert [(each["code"], each["line"]) for each in errors] == [("model_not_allowed", 2), ("model_not_allowed", 3)]
    words = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", "model": "us/m"}
    assert refusal_of(await room.http.post("/v1/batches", json=words)) == (403, "model_not_allowed")


async def test_a_batch_goes_on_and_is_tried_again_only_along_what_its_tenant_may_use(room: Room) -> None:
    batch = await room.batch(line("1", model="eu/m") + line("2", model="eu/m"))
    await room.set_rules(allow=("eu/m",))
    path = f"/v1/batches/{batch['id']}"
    for way in ("resume?model=us/m", "resume?chain=default"):
        assert refusal_of(await room.http.post(f"{path}/{way}")) == (403, "model_not_allowed")
    assert (await room.http.post(f"{path}/resume?model=eu/m")).status_code == 200
    assert (await room.http.post(f"{path}/cancel")).status_code == 200
    while await room.store.batch_lifecycle.cancel_slice():
        continue
    await room.store.batch_lifecycle.close_finished()
    for way in ("retry?model=us/m", "retry?chain=default"):
        assert refusal_of(await room.http.post(f"{path}/{way}")) == (403, "model_not_allowed")
    await room.set_rules(allow=("us/m",))
    assert refusal_of(await room.http.post(f"{path}/retry")) == (403, "model_not_allowed")
    assert (await room.http.post(f"{path}/retry?model=us/m")).status_code == 200


async def test_the_list_of_models_shows_what_the_tenant_may_use(room: Room) -> None:
    async def listed() -> set[str]:
        return {each["id"] for each in (await room.http.get("/v1/models")).json()["data"]}

    assert await listed() == {"default", "ab", "us/m", "eu/m", "us/a", "eu/b"}
    await room.set_rules(allow=("ab", "us/other"))
    assert await listed() == {"ab", "us/other"}
    assert (await room.http.get("/v1/models/us/other")).json()["owned_by"] == "us"
    assert refusal_of(await room.http.get("/v1/models/default")) == (404, "model_not_found")


async def test_an_administrator_sees_the_providers_of_what_its_tenant_may_use(room: Room) -> None:
    room.http.headers.update(bearer(await key_for(room.store, Scope.ADMIN, tenant="acme")))

    async def seen() -> set[str]:
        return {f"{each['provider']}/{each['model']}" for each in (await room.http.get("/v1/providers")).json()["data"]}

    assert {"us/m", "eu/m", "us/a"} <= await seen()
    await room.set_rules(allow=("ab",))
    assert await seen() == {"us/a", "eu/b"}


async def test_a_tenant_with_a_budget_may_name_no_model_without_a_price(room: Room) -> None:
    await room.set_rules(usd_per_month=5.0)
    error = await room.refused(model="eu/m-2026-11-30")
    assert error["code"] == "model_without_price"
    assert error["message"].startswith(
        "'eu/m-2026-11-30' has no known price, so the budget of tenant 'acme' cannot account for it"
    )
    batch = await room.batch(line("1", model="eu/m"))
    assert batch["errors"]["data"][0]["code"] == "model_without_price"
    await room.set_rules()
    batch = await room.batch(line("1", model="eu/m"), budget_usd=1.0)
    assert "the budget of the batch" in batch["errors"]["data"][0]["message"]
