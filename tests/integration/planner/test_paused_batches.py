"""Batches that wait for a person: each kind of wait is announced once, and again when it is over."""

import asyncio
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import openai
import pytest
import standardwebhooks
from ledger_help import new_worker, open_batch, outputs_of, part_pages, put_back, run_all, succeeded
from webhook_help import receiver

from understudy.models.config.settings import Settings, WebhookSettings
from understudy.models.state import BatchState, JobState
from understudy.models.store import Store
from understudy.models.webhook_signing import callback_owner
from understudy.producer.runs.output import output_line
from understudy.worker.webhooks.delivery import Deliverer
from understudy.worker.webhooks.sender import Sender

HOOK = "https://hooks.example.com"
WHY = "the first 10 jobs all failed: bad_request at lead/large"
LOOPBACK = WebhookSettings(allow_networks=("127.0.0.0/8",))


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with Sender(LOOPBACK, 4, deadline_s=5) as made:
        yield made


async def told(store: Store) -> list[str]:
    """The events so far, oldest first."""
    return [row["event"] for row in sorted(await store.webhooks.deliveries("default"), key=lambda row: row["id"])]


async def waiting_batch(store: Store, **fields: Any) -> str:
    return (await open_batch(store, 2, callback_url=HOOK, **fields))[0]


async def test_pausing_and_resuming_a_batch_are_announced_once_each(store: Store) -> None:
    batch_id = await waiting_batch(store)
    assert await store.batch_lifecycle.pause(batch_id, "by hand") and await store.batch_lifecycle.pause(
        batch_id, "by hand, again"
    )
    assert await told(store) == ["batch.paused"]
    view = await store.batches.view(batch_id)
    assert view is not None and view.paused == "by hand, again"
    assert await store.batch_lifecycle.resume(batch_id) and await store.batch_lifecycle.resume(batch_id)
    assert await told(store) == ["batch.paused", "batch.resumed"]


async def test_a_batch_that_has_ended_is_neither_paused_nor_announced(store: Store) -> None:
    batch_id, ids = await open_batch(store, 1, callback_url=HOOK)
    await run_all(store, await new_worker(store), ids)
    await store.batch_lifecycle.close_finished()
    assert not await store.batch_lifecycle.pause(batch_id, "too late") and not await store.batch_lifecycle.resume(
        batch_id
    )
    await store.batch_lifecycle.block({batch_id: "too late"})
    assert await told(store) == ["batch.completed"]


async def test_a_batch_whose_jobs_fail_alike_is_announced(store: Store) -> None:
    batch_id = await waiting_batch(store)
    assert await store.canary.hold_failing(batch_id, WHY, canary=True)
    assert not await store.canary.hold_failing(batch_id, WHY, canary=True)
    assert await told(store) == ["batch.paused"]


async def test_a_spent_budget_is_announced_and_so_is_its_grant(store: Store) -> None:
    batch_id = await waiting_batch(store, budget_usd=1.0)
    assert await store.budgets.pause_spent(batch_id, 1.0, "its budget of 1.00 USD is reached")
    assert not await store.budgets.pause_spent(batch_id, 1.0, "its budget of 1.00 USD is reached")
    assert await told(store) == ["batch.paused"]
    assert await store.budgets.grant_batch(batch_id) == 2.0 and await store.batch_lifecycle.resume(batch_id)
    assert await told(store) == ["batch.paused", "batch.resumed"]


async def test_a_batch_that_waits_for_the_operator_is_announced_and_so_is_its_end(store: Store) -> None:
    batch_id = await waiting_batch(store)
    for reason in ("no key of lead is accepted", "no key of lead is accepted", "no key of lead has credit left"):
        await store.batch_lifecycle.block({batch_id: reason})
    assert await store.batch_lifecycle.blocked() == {batch_id: "no key of lead has credit left"}
    assert await told(store) == ["batch.paused"]
    await store.batch_lifecycle.unblock([batch_id])
    await store.batch_lifecycle.unblock([batch_id])
    assert await told(store) == ["batch.paused", "batch.resumed"] and await store.batch_lifecycle.blocked() == {}


async def test_a_batch_that_is_held_is_not_said_to_go_on_because_a_key_was_fixed(store: Store) -> None:
    batch_id = await waiting_batch(store)
    await store.batch_lifecycle.block({batch_id: "no key of lead is accepted"})
    await store.batch_lifecycle.pause(batch_id, "by hand")
    assert await store.batch_lifecycle.blocked() == {}
    await store.batch_lifecycle.unblock([batch_id])
    assert await told(store) == ["batch.paused", "batch.paused"]


async def test_who_lets_a_batch_go_on_is_told_if_it_still_waits_for_the_operator(store: Store) -> None:
    batch_id = await waiting_batch(store)
    await store.batch_lifecycle.block({batch_id: "no key of lead is accepted"})
    await store.batch_lifecycle.pause(batch_id, "by hand")
    await store.batch_lifecycle.resume(batch_id)
    await store.batch_lifecycle.block({batch_id: "no key of lead is accepted"})
    assert await told(store) == ["batch.paused", "batch.paused", "batch.resumed", "batch.paused"]
    await store.batch_lifecycle.unblock([batch_id])
    assert (await told(store))[4:] == ["batch.resumed"]


async def test_the_event_says_why_even_when_the_batch_goes_on_before_it_is_sent(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        batch_id, _ = await open_batch(store, 2, callback_url=there.url)
        await store.batch_lifecycle.pause(batch_id, WHY)
        await store.batch_lifecycle.resume(batch_id)
        each = Deliverer("worker_1", store, Settings(webhooks=LOOPBACK), sender, time.time, Random(1))
        await each.pass_once()
        await each.idle()
        got = {request.event["type"]: request for request in there.got}
    assert got["batch.paused"].event["data"] == {"id": batch_id, "reason": WHY}
    assert got["batch.resumed"].event["data"] == {"id": batch_id}
    (secret,) = await store.webhooks.signing_secrets(callback_owner("default"))
    for name, request in got.items():
        standardwebhooks.Webhook(secret).verify(request.body, request.headers)
        event = openai.OpenAI(api_key="none").webhooks.unwrap(request.body, request.headers, secret=secret)
        assert str(event.type) == name and event.data.id == batch_id  # type: ignore[union-attr]


async def test_who_was_told_that_a_batch_was_paused_does_not_have_its_results(store: Store, sender: Sender) -> None:
    """Not even if that arrives after its end."""
    async with receiver() as there:
        await store.webhooks.add_endpoint("default", there.url, ["batch.paused"], actor="test")
        batch_id, ids = await open_batch(store, 2)
        await store.batch_lifecycle.pause(batch_id, WHY)
        await store.batch_lifecycle.resume(batch_id)
        await run_all(store, await new_worker(store), ids)
        assert await store.batch_lifecycle.close_finished() == [batch_id]
        each = Deliverer("worker_1", store, Settings(webhooks=LOOPBACK), sender, time.time, Random(1))
        await each.pass_once()
        await each.idle()
        assert len(there.got) == 1
    assert [row["state"] for row in await store.webhooks.deliveries("default")] == ["delivered"]
    await store.content.forget_delivered("until_delivered", -1.0)
    assert [row.body for row in await outputs_of(store, batch_id)] == ['{"answer":"yes"}'] * 2


@pytest.mark.parametrize("kind", ["paused", "blocked", "put back", "unknown"])
async def test_an_ignored_batch_ends_at_its_deadline_and_its_lines_say_why(store: Store, kind: str) -> None:
    batch_id, ids = await open_batch(store, 2, expires_at=await store.now() + 1.0)
    worker = await new_worker(store)
    first, other = await store.claims.start(worker, ids)
    reason = "rate_limit at lead/large" if kind == "put back" else None
    await store.claims.settle(worker, [succeeded(first), put_back(other, await store.now() + 0.5, reason)])  # type: ignore[arg-type]
    if kind == "paused":
        await store.batch_lifecycle.pause(batch_id, WHY)
    elif kind == "blocked":
        await store.batch_lifecycle.block({batch_id: "no key of lead is accepted"})
    await until_expired(store)
    view = await store.batches.view(batch_id)
    assert view is not None and view.state is BatchState.EXPIRED
    said = {row.state: output_line(row)["error"] for row in await outputs_of(store, batch_id)}
    why = {
        "paused": f": its batch was paused: {WHY}",
        "blocked": ": no key of lead is accepted",
        "put back": ": rate_limit at lead/large",
        "unknown": ".",
    }[kind]
    expected = {"code": "batch_expired", "message": f"This request could not be completed before its deadline{why}"}
    assert said == {JobState.SUCCEEDED: None, JobState.EXPIRED: expected}
    pages = [row async for page in part_pages(store, batch_id, "error") for row in page]
    assert [output_line(row)["error"] for row in pages] == [expected]


async def until_expired(store: Store) -> None:
    deadline = time.monotonic() + 30
    while not await store.batch_lifecycle.expire_slice():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await store.batch_lifecycle.close_finished()


HELD_S = 2.0


@pytest.mark.parametrize("kind", ["by hand", "failing", "spent"])
async def test_the_time_in_which_a_batch_was_held_does_not_count_for_its_rate(store: Store, kind: str) -> None:
    batch_id, ids = await open_batch(store, 40, budget_usd=1.0)
    worker = await new_worker(store)
    outcomes = [succeeded(job) for job in await store.claims.start(worker, ids[:30])]
    outcomes[0].attempts[0].started_at = await store.now()
    await store.claims.settle(worker, outcomes)
    match kind:
        case "by hand":
            assert await store.batch_lifecycle.pause(batch_id, "look")
        case "failing":
            assert await store.canary.hold_failing(batch_id, WHY, canary=False)
        case _:
            assert await store.budgets.pause_spent(batch_id, 1.0, "its budget of 1.00 USD is reached")
    await asyncio.sleep(HELD_S / 2)
    assert await store.batch_lifecycle.pause(batch_id, "for another reason")
    await asyncio.sleep(HELD_S / 2)
    assert await store.batch_lifecycle.resume(batch_id)
    view = await store.batches.view(batch_id)
    assert view is not None
    moved_s = await store.now() - outcomes[0].attempts[0].started_at - HELD_S
    assert view.recent_per_s >= 30 / max(moved_s, 1.0)
