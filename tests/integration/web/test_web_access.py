"""Who may see and change what on the web page."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import httpx
import pytest
from api_help import Clock, Served, key_for, served, walked
from fakeredis import FakeAsyncRedis
from ledger_help import open_batch

from understudy.models.api_keys import Scope
from understudy.models.config.settings import Settings
from understudy.models.disabled import ALL_MODELS
from understudy.models.failure import FailureClass
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.producer.web.rendering import PageRoute
from understudy.producer.web.sessions import COOKIE, form_token

PROVIDERS = {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "models": ["large", "small"]}}


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Served]:
    clock = Clock(time.monotonic())
    async with (
        served(store, time.time, Settings.model_validate({"data": tmp_path, "providers": PROVIDERS}), clock) as opened,
        FakeAsyncRedis() as opened.context.redis,
    ):
        yield opened


@asynccontextmanager
async def signed_in(api: Served, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on another machine, signed in with this key."""
    async with api.client("203.0.113.9") as http:
        answer = await http.post("/sign-in", data={"key": key})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield http


async def test_a_browser_elsewhere_is_led_to_sign_in_and_gets_in_with_a_key(api: Served, store: Store) -> None:
    key = await key_for(store, Scope.READ)
    async with api.client("203.0.113.9") as http:
        for path in ("/", "/batches", "/batches/batch_1", "/jobs/job_1", "/providers"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    async with signed_in(api, key) as http:
        assert "Overview" in (await http.get("/")).text


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_is_not_the_key(
    api: Served, store: Store
) -> None:
    key = await key_for(store, Scope.READ)
    async with api.client() as http:
        cookie = (await http.post("/sign-in", data={"key": key})).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    assert token not in key and key not in cookie
    async for name in api.context.redis.scan_iter():
        assert token not in name.decode() and key not in name.decode()


@pytest.mark.parametrize("wrong", ["", "us_nope", "us_" + "a" * 20 + "_" + "b" * 43])
async def test_a_wrong_key_gets_a_sentence_and_no_session(api: Served, store: Store, wrong: str) -> None:
    await key_for(store, Scope.READ)
    async with api.client("203.0.113.9") as http:
        answer = await http.post("/sign-in", data={"key": wrong})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers and 'role="alert"' in answer.text
        assert not wrong or wrong not in answer.text


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 303)])
async def test_no_page_of_another_site_signs_a_person_in(api: Served, store: Store, site: str, status: int) -> None:
    key = await key_for(store, Scope.READ)
    async with api.client("203.0.113.9") as http:
        answer = await http.post("/sign-in", data={"key": key}, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) == (status == 303)


async def test_a_session_ends_with_its_key(api: Served, store: Store) -> None:
    key = await key_for(store, Scope.READ)
    async with signed_in(api, key) as http:
        (record,) = await store.api_keys.listed()
        await key_for(store, Scope.READ)
        await store.api_keys.revoke(record.id, actor="test")
        assert (await http.get("/")).headers["location"] == "/sign-in"


async def test_signing_out_and_in_again_ends_the_former_session(api: Served, store: Store) -> None:
    key = await key_for(store, Scope.READ)
    async with signed_in(api, key) as http:
        first = http.cookies[COOKIE]
        await http.post("/sign-in", data={"key": key})
        second = http.cookies[COOKIE]
        form = re.search(r'name="form_token" value="([0-9a-f]{64})"', (await http.get("/")).text)
        assert form
        assert (await http.post("/sign-out", data={"form_token": form[1]})).status_code == 303
    for token in (first, second):
        async with api.client("203.0.113.9") as http:
            http.cookies.set(COOKIE, token)
            assert (await http.get("/")).headers["location"] == "/sign-in"


async def test_a_tenant_sees_and_changes_its_own_batches_only(api: Served, store: Store) -> None:
    ours, _ = await open_batch(store, 1, tenant="ours")
    theirs, their_jobs = await open_batch(store, 1, tenant="theirs")
    async with signed_in(api, await key_for(store, Scope.SUBMIT, tenant="ours")) as http:
        for path in ("/", "/batches"):
            shown = (await http.get(path)).text
            assert ours in shown and theirs not in shown
        assert (await http.get(f"/batches/{theirs}")).status_code == 404
        assert (await http.get(f"/jobs/{their_jobs[0]}")).status_code == 404
        form = re.search(r'name="form_token" value="([0-9a-f]{64})"', (await http.get(f"/batches/{ours}")).text)
        assert form
        answer = await http.post(f"/batches/{theirs}/cancel", data={"form_token": form[1]})
        assert answer.status_code == 404
        assert (await http.post(f"/batches/{ours}/cancel", data={"form_token": form[1]})).status_code == 303
    view = await store.batches.view(theirs)
    assert view is not None and view.state == "in_progress"


async def test_on_no_page_another_tenants_work_exists_and_without_a_session_there_is_only_the_form(
    api: Served, store: Store
) -> None:
    batch_id, (job_id,) = await open_batch(store, 1, tenant="theirs")
    owned = {"batch_id": [batch_id], "job_id": [job_id], "act": ["pause", "resume", "cancel", "retry"]}
    key = await key_for(store, Scope.ADMIN, tenant="ours")
    pages = [(route.path, route.methods) for route in walked(api.app.routes) if isinstance(route, PageRoute)]
    assert len(pages) > 7
    async with signed_in(api, key) as ours, api.client("203.0.113.9") as stranger:
        ours_form = {"form_token": form_token(ours.cookies[COOKIE])}
        for path, methods in pages:
            names = re.findall(r"{(\w+)}", path)
            for words in product(*(owned[name] for name in names)):
                place = path.format(**dict(zip(names, words, strict=True)))
                if path == "/sign-out":
                    continue
                for method in methods:
                    answer = await ours.request(method, place, data=ours_form if method == "POST" else None)
                    assert answer.status_code == 404 or not names, f"{method} {place}"
                    shown = answer.text.replace(f"no batch {batch_id}", "").replace(f"no job {job_id}", "")
                    assert batch_id not in shown and job_id not in shown, f"{method} {place}"
                    if path != "/sign-in":
                        shut = await stranger.request(method, place)
                        assert (shut.status_code, shut.headers["location"]) == (303, "/sign-in"), f"{method} {place}"
    view = await store.batches.view(batch_id)
    assert view is not None and view.state == "in_progress" and view.paused is None


async def test_a_key_that_may_only_read_has_no_buttons_and_changes_nothing(api: Served, store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    async with signed_in(api, await key_for(store, Scope.READ)) as http:
        shown = (await http.get(f"/batches/{batch_id}")).text
        assert "Cancel the batch" not in shown and "/providers" not in shown
        form = re.search(r'name="form_token" value="([0-9a-f]{64})"', shown)
        assert form
        assert (await http.post(f"/batches/{batch_id}/cancel", data={"form_token": form[1]})).status_code == 403
        assert (await http.get("/providers")).status_code == 403


async def test_another_tenants_administrator_sees_neither_disabled_keys_nor_models_that_are_not_allowed(
    api: Served, store: Store
) -> None:
    await store.tenants.set_limits(TenantLimits("ours", allow=("lead/small",)), actor="test")
    words = "the provider's words about somebody's request"
    await store.credentials.set_aside("lead", "main", ALL_MODELS, FailureClass.CREDENTIAL, words)
    async with signed_in(api, await key_for(store, Scope.ADMIN, tenant="ours")) as http:
        for path in ("/", "/providers"):
            shown = (await http.get(path)).text
            assert "somebody" not in shown and "Needs a person" not in shown and "lead/large" not in shown
    async with signed_in(api, await key_for(store, Scope.ADMIN)) as http:
        assert "understudy providers enable lead" in (await http.get("/")).text


async def test_while_redis_is_away_no_one_is_let_in_and_the_page_says_so(api: Served, store: Store) -> None:
    async with signed_in(api, await key_for(store, Scope.READ)) as http:
        api.context.redis = FakeAsyncRedis(connected=False)  # type: ignore[no-untyped-call]
        answer = await http.get("/")
        assert answer.status_code == 503 and "Redis" in answer.text
