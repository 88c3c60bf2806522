"""The web page shows batches, jobs and providers, whatever callers and providers wrote into them."""

import re
import time
from collections.abc import AsyncIterator, Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from api_help import Served, served
from fakeredis import FakeAsyncRedis
from ledger_help import failed, new_worker, open_batch, succeeded

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import StartedJob
from understudy.models.store import Store

PROVIDERS = {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202eevil {{ 7*7 }} \"'"


@pytest.fixture
async def api(store: Store, tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings.model_validate({"data": tmp_path, "providers": PROVIDERS})
    async with served(store, time.time, settings) as opened, FakeAsyncRedis() as opened.context.redis:
        yield opened


async def page(api: Served, path: str, status: int = 200) -> str:
    async with api.client() as http:
        answer = await http.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


async def post(api: Served, path: str, **form: str) -> tuple[int, str]:
    async with api.client() as http:
        answer = await http.post(path, data=form)
    return answer.status_code, answer.headers.get("location", "")


def words(html: str) -> str:
    """The text of a page, as a person reads it."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def form_token_in(html: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', html)
    assert found, html
    return found[1]


async def work(store: Store, ids: list[str], outcome: Callable[[StartedJob], Any]) -> None:
    """End these jobs."""
    worker = await new_worker(store)
    started = await store.claims.start(worker, ids)
    await store.claims.settle(worker, [outcome(job) for job in started])
    await store.batch_lifecycle.close_finished()


async def test_an_empty_ledger_says_how_to_begin(api: Served) -> None:
    assert "understudy submit" in words(await page(api, "/"))
    assert "There are no batches" in words(await page(api, "/batches"))


async def test_a_running_batch_is_on_the_overview_with_its_progress(api: Served, store: Store) -> None:
    batch_id, ids = await open_batch(store, 4, source="prompts.jsonl")
    await work(store, ids[:1], succeeded)
    shown = await page(api, "/")
    assert f'href="/batches/{batch_id}"' in shown
    assert "prompts.jsonl in progress 1 of 4 lines" in words(shown)


async def test_a_paused_batch_needs_a_person_and_says_why(api: Served, store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    await store.batch_lifecycle.pause(batch_id, "paused by its owner")
    shown = words(await page(api, "/"))
    assert shown.index("Needs a person") < shown.index("Paused: paused by its owner") < shown.index("Running")


async def test_a_batch_shows_its_lines_by_state_with_what_failed_and_why(api: Served, store: Store) -> None:
    batch_id, ids = await open_batch(store, 3)
    await work(store, ids[:1], succeeded)
    await work(store, ids[1:2], lambda job: failed(job, FailureClass.BAD_REQUEST))
    everything = words(await page(api, f"/batches/{batch_id}"))
    assert "2 of 3 lines, 1 failed" in everything
    assert "Cost so far $0.2500" in everything
    assert all(f"line-{line}" in everything for line in (1, 2, 3))
    of_failed = words(await page(api, f"/batches/{batch_id}?state=failed"))
    assert "line-2 failed" in of_failed
    assert "line-1" not in of_failed and "line-3" not in of_failed


async def test_lines_come_in_pages(api: Served, store: Store) -> None:
    batch_id, _ = await open_batch(store, 60)
    first = await page(api, f"/batches/{batch_id}")
    assert "line-50" in words(first) and "line-51" not in words(first)
    more = re.search(r'href="([^"]*after=[^"]*)"', first)
    assert more
    second = words(await page(api, unescape(more[1])))
    assert "line-51" in second and "line-60" in second and "line-50" not in second


async def test_batches_come_in_pages(api: Served, store: Store) -> None:
    ids = [(await open_batch(store, 1))[0] for _ in range(27)]
    first = await page(api, "/batches")
    assert ids[-1] in first and ids[2] in first and ids[1] not in first
    second = await page(api, f"/batches?after={ids[2]}")
    assert ids[1] in second and ids[0] in second and ids[2] not in second.replace(f"after={ids[2]}", "")


async def test_a_job_tells_its_story_from_the_prompt_to_the_answer(api: Served, store: Store) -> None:
    async with api.client() as http:
        sent = {"model": "lead/large", "messages": [{"role": "user", "content": "What is a lamp?"}]}
        job_id = (await http.post("/v1/jobs", json=sent)).json()["id"]
    before = words(await page(api, f"/jobs/{job_id}"))
    assert "accepted for lead/large" in before and "What is a lamp?" in before and "Answer" not in before
    await work(store, [job_id], succeeded)
    after = words(await page(api, f"/jobs/{job_id}"))
    assert "lead/large (key main) answered after 0.12 s" in after
    assert '"answer": "yes"' in after


@pytest.mark.parametrize("hostile", [HOSTILE, "w" * 1_000_000, "\u2066\u202e", "</pre></body>"])
async def test_what_callers_write_is_shown_as_text(api: Served, store: Store, hostile: str) -> None:
    async with api.client() as http:
        sent = {"model": "lead/large", "messages": [{"role": "user", "content": hostile}]}
        job_id = (await http.post("/v1/jobs", json=sent)).json()["id"]
    batch_id, _ = await open_batch(store, 1, source=hostile[:200])
    for path in (f"/jobs/{job_id}", f"/batches/{batch_id}", "/", "/batches"):
        shown = await page(api, path)
        assert "<script>alert" not in shown and "<img src=x" not in shown and "49" not in words(shown).split()
        assert shown.count("</body>") == 1
        assert len(shown) < 600_000


async def test_no_page_needs_what_its_policy_forbids(api: Served, store: Store) -> None:
    batch_id, ids = await open_batch(store, 1)
    for path in (
        "/",
        "/batches",
        f"/batches/{batch_id}",
        f"/jobs/{ids[0]}",
        "/providers",
        "/sign-in",
        "/jobs/job_none",
    ):
        async with api.client() as http:
            answer = await http.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:|https?://", answer.text)
        for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
            async with api.client() as http:
                assert (await http.get(address)).status_code == 200


@pytest.mark.parametrize("path", ["/jobs/job_none", "/batches/batch_none", "/batches/batch_none?state=failed"])
async def test_what_does_not_exist_is_a_page_with_a_sentence(api: Served, path: str) -> None:
    assert "there is no" in words(await page(api, path, 404))


async def test_a_batch_is_paused_resumed_and_cancelled_by_buttons(api: Served, store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    for act, then in (("pause", "Paused"), ("resume", "in progress"), ("cancel", "cancel")):
        token = form_token_in(await page(api, f"/batches/{batch_id}"))
        assert await post(api, f"/batches/{batch_id}/{act}", form_token=token) == (303, f"/batches/{batch_id}")
        assert then in words(await page(api, f"/batches/{batch_id}"))


async def test_failed_calls_are_grouped_with_an_example_and_their_lines_are_retried(api: Served, store: Store) -> None:
    batch_id, ids = await open_batch(store, 2)
    await work(store, ids[:1], succeeded)
    await work(store, ids[1:], lambda job: failed(job, FailureClass.SERVER))
    shown = await page(api, f"/batches/{batch_id}")
    assert "1 server , for example at lead/large" in words(shown)
    assert f'href="/jobs/{ids[1]}"' in shown
    status, retry = await post(api, f"/batches/{batch_id}/retry", form_token=form_token_in(shown))
    assert status == 303 and retry != f"/batches/{batch_id}"
    assert "0 of 1 lines" in words(await page(api, retry))
    assert retry.removeprefix("/batches/") in await page(api, f"/batches/{batch_id}")


async def test_a_form_without_its_token_changes_nothing(api: Served, store: Store) -> None:
    batch_id, _ = await open_batch(store, 1)
    for form in ({}, {"form_token": "0" * 64}, {"form_token": "é"}):
        assert (await post(api, f"/batches/{batch_id}/cancel", **form))[0] == 403
    assert "in progress" in words(await page(api, f"/batches/{batch_id}"))


async def test_providers_show_their_limits_and_state(api: Served) -> None:
    shown = words(await page(api, "/providers"))
    assert "lead" in shown and "In flight" in shown
