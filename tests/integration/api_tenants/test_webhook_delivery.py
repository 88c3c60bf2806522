"""From the end of a job or batch to the receiver: what is sent, how it is signed, and what happens when it fails."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import openai
import orjson
import pytest
import standardwebhooks
from ledger_help import failed, new_worker, open_batch, run_all, singles, succeeded
from webhook_help import Receiver, receiver

from understudy.models.config.settings import ApiSettings, Settings, WebhookSettings
from understudy.models.jobs.execution import ResultRecord, Settled
from understudy.models.jobs.suspects import DEAD_AT
from understudy.models.jobs.views import JobView
from understudy.models.state import JobState
from understudy.models.store import Store, StoreBusy, StoreUnavailable, deliveries, open_store
from understudy.models.store.deliveries import Due, Place
from understudy.models.webhook_events import DELIVERED, Delivery, Tried
from understudy.models.webhook_signing import Signing, callback_owner
from understudy.worker.webhooks import delivery as webhooks
from understudy.worker.webhooks.delivery import DELAYS_S, LOOKS, Deliverer
from understudy.worker.webhooks.message import Messages
from understudy.worker.webhooks.sender import Answer, Sender

OWNER = callback_owner("default")
LOOPBACK = WebhookSettings(allow_networks=("127.0.0.0/8",))


def deliverer(store: Store, sender: Sender, name: str = "worker_1", **words: Any) -> Deliverer:
    settings = Settings(webhooks=LOOPBACK, **words)
    return Deliverer(name, store, settings, sender, time.time, Random(1))


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with Sender(LOOPBACK, 4, deadline_s=5) as made:
        yield made


async def deliver(each: Deliverer) -> None:
    await each.pass_once()
    await each.idle()


async def ended_job(store: Store, url: str | None, answer: str = "yes", **fields: Any) -> str:
    (job_id,) = await singles(store, 1, callback_url=url, **fields)
    worker = await new_worker(store)
    await store.claims.settle(worker, [succeeded(job, answer) for job in await store.claims.start(worker, [job_id])])
    return job_id


async def only_delivery(store: Store) -> dict[str, Any]:
    (row,) = await store.webhooks.deliveries("default")
    return row


async def test_a_jobs_webhook_carries_the_job_with_its_result_and_verifies(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        job_id = await ended_job(store, f"{there.url}/done?flow=1", metadata={"flow": "7"})
        await deliver(deliverer(store, sender))
        (got,) = there.got
    assert got.path == "/done?flow=1" and got.headers["host"] == f"127.0.0.1:{there.port}"
    (secret,) = await store.webhooks.signing_secrets(OWNER)
    event = standardwebhooks.Webhook(secret).verify(got.body, got.headers)
    assert event["type"] == "job.succeeded" and event["id"] == got.headers["webhook-id"]
    data = event["data"]
    assert data["id"] == job_id and data["result"] == {"answer": "yes"} and data["metadata"] == {"flow": "7"}
    row = await only_delivery(store)
    assert (row["state"], row["tries"], row["last_status"], row["claimed_by"]) == ("delivered", 1, 204, None)
    assert row["log"][0]["status"] == 204 and row["log"][0]["error"] is None


async def test_a_batchs_webhook_is_thin_and_openais_sdk_unwraps_it(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        batch_id, ids = await open_batch(store, 2, callback_url=there.url)
        await run_all(store, await new_worker(store), ids)
        assert await store.batch_lifecycle.close_finished() == [batch_id]
        await deliver(deliverer(store, sender))
        (got,) = there.got
    (secret,) = await store.webhooks.signing_secrets(OWNER)
    event = openai.OpenAI(api_key="none").webhooks.unwrap(got.body, got.headers, secret=secret)
    assert event.type == "batch.completed" and event.data.id == batch_id and event.object == "event"
    assert set(got.event["data"]) == {"id"}
    standardwebhooks.Webhook(secret).verify(got.body, got.headers)


async def test_openais_sdk_unwraps_a_jobs_webhook_although_it_does_not_know_it(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        job_id = await ended_job(store, there.url)
        await deliver(deliverer(store, sender))
        (got,) = there.got
    (secret,) = await store.webhooks.signing_secrets(OWNER)
    event = openai.OpenAI(api_key="none").webhooks.unwrap(got.body, got.headers, secret=secret)
    assert str(event.type) == "job.succeeded" and event.data.id == job_id  # type: ignore[union-attr]


async def test_jobs_of_a_batch_have_no_webhooks_of_their_own(store: Store) -> None:
    await store.webhooks.add_endpoint("default", "https://hooks.example.com", ["*"], actor="test")
    _, ids = await open_batch(store, 2)
    await run_all(store, await new_worker(store), ids)
    assert await store.webhooks.deliveries("default") == []
    await store.batch_lifecycle.close_finished()
    assert [row["event"] for row in await store.webhooks.deliveries("default")] == ["batch.completed"]


async def test_every_end_of_a_single_job_is_announced(store: Store) -> None:
    await store.webhooks.add_endpoint("default", "https://hooks.example.com", ["job.*"], actor="test")
    good, bad, unwanted, stopped = await singles(store, 4)
    await singles(store, 1, expires_at=await store.now() - 1)
    worker = await new_worker(store)
    started = {job.id: job for job in await store.claims.start(worker, [good, bad, stopped])}
    await store.claims.settle(worker, [succeeded(started[good]), failed(started[bad])])
    assert await store.jobs.cancel(unwanted) is JobState.CANCELLED
    assert await store.jobs.cancel(stopped) is JobState.RUNNING
    await store.workers.remove(worker)
    await store.batch_lifecycle.expire_slice()
    events = sorted(row["event"] for row in await store.webhooks.deliveries("default"))
    assert events == ["job.cancelled", "job.cancelled", "job.expired", "job.failed", "job.succeeded"]


async def test_a_dead_letter_is_announced(store: Store) -> None:
    (job_id,) = await singles(store, 1, callback_url="https://hooks.example.com")
    for _ in range(DEAD_AT):
        worker = await new_worker(store, lease_s=-1)
        await store.workers.beat(worker, 60)
        assert await store.claims.start(worker, [job_id])
        await store.workers.beat(worker, -1)
        await store.workers.rescue()
    assert [row["event"] for row in await store.webhooks.deliveries("default")] == ["job.failed"]


async def test_an_endpoint_gets_the_events_and_metadata_that_it_asked_for(store: Store) -> None:
    wanted, _ = await store.webhooks.add_endpoint(
        "default", "https://a.example", ["job.succeeded"], {"flow": "7"}, actor="test"
    )
    await store.webhooks.add_endpoint("default", "https://b.example", ["job.failed", "batch.*"], actor="test")
    await store.webhooks.add_endpoint("other", "https://c.example", ["*"], actor="test")
    await ended_job(store, None, metadata={"flow": "7", "more": "x"})
    await ended_job(store, None, metadata={"flow": "8"})
    await ended_job(store, None)
    rows = [*await store.webhooks.deliveries("default"), *await store.webhooks.deliveries("other")]
    assert [row["endpoint_id"] for row in rows] == [wanted["id"]]


@pytest.mark.parametrize(("size", "inline"), [(256 * 1024, True), (256 * 1024 + 1, False)])
async def test_a_result_over_256_kb_is_left_to_its_url(store: Store, sender: Sender, size: int, inline: bool) -> None:
    async with receiver() as there:
        (job_id,) = await singles(store, 1, callback_url=there.url)
        worker = await new_worker(store)
        (job,) = await store.claims.start(worker, [job_id])
        body = orjson.dumps({"a": "x" * (size - 8)}).decode()
        assert len(body) == size
        ended = Settled(job.id, "", job.claim_no, JobState.SUCCEEDED, [], ResultRecord(200, body))
        await store.claims.settle(worker, [ended])
        await deliver(deliverer(store, sender, api=ApiSettings(public_url="https://llm.example.com")))
        (got,) = there.got
    data = got.event["data"]
    assert (data["result"] is not None) is inline
    assert data["result_url"] == f"https://llm.example.com/v1/jobs/{job_id}/result"


async def test_a_receiver_that_fails_for_three_days_gets_one_id_is_then_given_up_and_replayed(
    tmp_path: Path, sender: Sender
) -> None:
    now = [1_800_000_000.0]
    async with open_store(None, tmp_path, clock=lambda: now[0]) as store, receiver(status=503) as there:
        await ended_job(store, there.url, expires_at=now[0] + 60)
        sends = Deliverer("worker_1", store, Settings(webhooks=LOOPBACK), sender, lambda: now[0], Random(1))
        began, times = now[0], []
        while (row := await only_delivery(store))["state"] == "pending":
            now[0] = max(now[0], row["next_at"])
            times.append(now[0] - began)
            await deliver(sends)
        assert len(there.got) == len(DELAYS_S) + 1 == 10
        assert len({got.headers["webhook-id"] for got in there.got}) == 1
        assert len({got.body for got in there.got}) == 1
        assert len({got.headers["webhook-timestamp"] for got in there.got}) == 10
        assert 3 * 86_400 < times[-1] < 4 * 86_400
        assert row["state"] == "dead" and row["last_error"] == "answered 503" and len(row["log"]) == 10
        there.status = 200
        assert await store.webhooks.replay("default", row["id"], actor="test")
        await deliver(sends)
        assert there.got[-1].headers["webhook-id"] == row["id"]
        assert (await only_delivery(store))["state"] == "delivered"


async def test_retry_after_puts_a_try_off_but_not_for_more_than_a_day(tmp_path: Path, sender: Sender) -> None:
    now = [1_800_000_000.0]
    async with open_store(None, tmp_path, clock=lambda: now[0]) as store, receiver(status=429) as there:
        there.headers = {"retry-after": "120"}
        await ended_job(store, there.url, expires_at=now[0] + 60)
        sends = Deliverer("worker_1", store, Settings(webhooks=LOOPBACK), sender, lambda: now[0], Random(1))
        await deliver(sends)
        assert (await only_delivery(store))["next_at"] == now[0] + 120
        now[0] += 120
        there.headers = {"retry-after": "99999999"}
        await deliver(sends)
        assert (await only_delivery(store))["next_at"] == now[0] + 86_400


async def test_a_redirect_is_not_followed(store: Store, sender: Sender) -> None:
    async with receiver() as elsewhere, receiver(status=302, headers={"location": elsewhere.url}) as there:
        await ended_job(store, there.url)
        await deliver(deliverer(store, sender))
        assert len(there.got) == 1 and not elsewhere.got
    assert (await only_delivery(store))["last_error"] == "answered 302"


async def test_gone_disables_an_endpoint_and_gives_up_what_waits_for_it(store: Store, sender: Sender) -> None:
    async with receiver(status=410) as there:
        endpoint, _ = await store.webhooks.add_endpoint("default", there.url, ["job.*"], actor="test")
        for _ in range(8):
            await ended_job(store, None)
        await deliver(deliverer(store, sender))
        assert len(there.got) <= 4
        assert {row["state"] for row in await store.webhooks.deliveries("default")} == {"dead"}
        view = await store.webhooks.endpoint("default", endpoint["id"])
        assert view is not None and "410" in view["disabled"]
        await ended_job(store, None)
        assert len(await store.webhooks.deliveries("default")) == 8
        assert await store.webhooks.replay_dead("default", actor="test") == 0
        assert await store.webhooks.enable_endpoint("default", endpoint["id"], actor="test")
        there.status = 200
        assert await store.webhooks.replay_dead("default", actor="test") == 8
        again = deliverer(store, sender)
        async with asyncio.timeout(30):  # four at a time: on a busy machine one pass may not wait for the first one
            while {row["state"] for row in await store.webhooks.deliveries("default")} != {"delivered"}:
                await deliver(again)


async def test_gone_kills_a_callbacks_delivery_at_once(store: Store, sender: Sender) -> None:
    async with receiver(status=410) as there:
        await ended_job(store, there.url)
        await deliver(deliverer(store, sender))
    assert (await only_delivery(store))["state"] == "dead"


async def test_what_goes_to_an_endpoint_that_was_removed_is_given_up(store: Store, sender: Sender) -> None:
    async with receiver(status=500) as there:
        endpoint, _ = await store.webhooks.add_endpoint("default", there.url, ["*"], actor="test")
        await ended_job(store, None)
        assert await store.webhooks.remove_endpoint("default", endpoint["id"], actor="test")
        await deliver(deliverer(store, sender))
        assert not there.got
    assert (await only_delivery(store))["last_error"] == "the endpoint was removed"


async def test_while_a_secret_is_rotated_both_verify(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        endpoint, old = await store.webhooks.add_endpoint("default", there.url, ["*"], actor="test")
        new = await store.webhooks.rotate_secret("default", endpoint["id"], actor="test")
        await ended_job(store, None)
        await deliver(deliverer(store, sender))
        (got,) = there.got
    assert len(got.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(got.body, got.headers)


async def test_two_hundred_deliveries_at_once_ask_once_for_their_secret_and_leave_the_ledger_to_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the first secret does not exist yet."""
    asked: list[str] = []
    reading: list[int] = [0, 0]
    signing, view = store.webhooks.signing, store.jobs.view

    async def counted_signing(of: Delivery) -> Signing:
        asked.append(of.owner)
        return await signing(of)

    async def counted_job(job_id: str, tenant: str) -> JobView | None:
        reading[:] = reading[0] + 1, max(reading[1], reading[0] + 1)
        try:
            return await view(job_id, tenant)
        finally:
            reading[0] -= 1

    monkeypatch.setattr(store.webhooks, "signing", counted_signing)
    monkeypatch.setattr(store.jobs, "view", counted_job)
    many = LOOPBACK.model_copy(update={"max_in_flight": 400})
    async with receiver() as there, Sender(many, 400, deadline_s=30) as sender:
        ids = await singles(store, 200, callback_url=there.url)
        await run_all(store, await new_worker(store), ids)
        crowd = Deliverer("worker_1", store, Settings(webhooks=many), sender, time.time, Random(1))
        crowd._messages = Messages(store, None, clock=lambda: 0.0)  # however long it takes on a busy machine
        await deliver(crowd)
        assert len(there.got) == 200
    assert {row["state"] for row in await store.webhooks.deliveries("default")} == {"delivered"}
    assert asked == [OWNER]
    assert reading[1] == LOOKS


async def test_a_retired_secret_signs_no_more_after_a_day(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    async with open_store(None, tmp_path, clock=lambda: now[0]) as store:
        (old,) = await store.webhooks.signing_secrets(OWNER)
        new = await store.webhooks.rotate_secret("default", OWNER, actor="test")
        assert await store.webhooks.signing_secrets(OWNER) == [new, old]
        now[0] += 86_401
        assert await store.webhooks.signing_secrets(OWNER) == [new]


async def test_a_late_try_of_a_worker_that_lost_its_claim_changes_nothing(store: Store) -> None:
    await ended_job(store, "https://hooks.example.com")
    (late,), _ = await store.deliveries.claim("worker_1", 10, 4, lease_s=-1)
    (mine,), _ = await store.deliveries.claim("worker_2", 10, 4, lease_s=60)
    assert late.id == mine.id
    assert await store.deliveries.finish("worker_1", [Tried(late, DELIVERED)]) == set()
    assert await store.deliveries.finish("worker_2", [Tried(mine, DELIVERED)]) == {mine.id}


async def test_a_receiver_with_a_thousand_deliveries_holds_up_no_other(store: Store) -> None:
    jobs = await singles(store, 1_000, callback_url="https://busy.example.com/x")
    others = await singles(store, 3, callback_url="https://calm.example.com/x", tenant="other")
    worker = await new_worker(store)
    for first in range(0, 1_000, 200):
        await run_all(store, worker, jobs[first : first + 200])
    await run_all(store, worker, others)
    claimed, _ = await store.deliveries.claim("worker_1", 64, 4, 60)
    assert sorted(each.tenant for each in claimed) == ["default"] * 4 + ["other"] * 3
    again, _ = await store.deliveries.claim("worker_2", 64, 4, 60)
    assert again == []


async def test_a_slow_receiver_delays_no_other_and_gets_four_at_once(store: Store) -> None:
    async def never(_: Any) -> None:
        await asyncio.sleep(60)

    async with (
        Sender(LOOPBACK, 4, deadline_s=6) as impatient,
        receiver(behaviour=never) as slow,
        receiver() as fast,
    ):
        worker = await new_worker(store)
        ids = await singles(store, 6, callback_url=slow.url)
        ids += await singles(store, 30, callback_url=fast.url)
        await run_all(store, worker, ids)
        sends = deliverer(store, impatient)
        began = time.monotonic()
        while len(fast.got) < 30:
            assert time.monotonic() - began < 5.7, "the fast receiver waited for the slow one"
            await sends.pass_once()
        await sends.idle()
        assert slow.most_at_once == 4
        assert fast.most_at_once <= 4
    states = [row["state"] for row in await store.webhooks.deliveries("default")]
    assert states.count("delivered") == 30 and states.count("pending") == 6


async def test_no_secret_and_no_answer_is_logged(
    store: Store, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiver(status=500) as there:
        await ended_job(store, f"{there.url}/canary-path", "canary-answer")
        await deliver(deliverer(store, sender))
        assert len(there.got) == 1
    (secret,) = await store.webhooks.signing_secrets(OWNER)
    ours = [each.getMessage() for each in caplog.records if not each.name.startswith(("aiosqlite", "sqlalchemy"))]
    for canary in ("canary", secret, secret.removeprefix("whsec_")):
        assert not any(canary in line for line in ours)
    assert secret not in str(await store.webhooks.deliveries("default"))


async def test_a_slow_try_is_broken_off_when_the_worker_stops_and_is_due_again(store: Store, sender: Sender) -> None:
    async def never(_: Any) -> None:
        await asyncio.sleep(60)

    async with receiver(behaviour=never) as there:
        await ended_job(store, there.url)
        worker = await new_worker(store)
        first = deliverer(store, sender, worker)
        await first.pass_once()
        await _until_got(there)
        await first.close()
        await store.workers.remove(worker)
        there.behaviour = None
        await deliver(deliverer(store, sender, "worker_2"))
        assert len({got.headers["webhook-id"] for got in there.got}) == 1 and len(there.got) == 2
    assert (await only_delivery(store))["state"] == "delivered"


async def _until_got(there: Receiver, deadline_s: float = 5) -> None:
    began = time.monotonic()
    while not there.got:
        assert time.monotonic() - began < deadline_s
        await asyncio.sleep(0.01)


async def test_a_failed_jobs_webhook_says_why(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        (job_id,) = await singles(store, 1, callback_url=there.url)
        worker = await new_worker(store)
        await store.claims.settle(worker, [failed(job) for job in await store.claims.start(worker, [job_id])])
        await deliver(deliverer(store, sender))
        (got,) = there.got
    data = got.event["data"]
    assert got.event["type"] == "job.failed" and data["state"] == "failed"
    assert data["result"] is None and data["error"]["message"] == "no" and data["error"]["code"] == "bad_request"


async def test_pruning_forgets_what_ended_and_keeps_what_waits(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        await ended_job(store, there.url)
        await deliver(deliverer(store, sender))
    await ended_job(store, "https://hooks.example.com")
    assert await store.webhooks.prune_deliveries(await store.now() - 60) == 0
    assert await store.webhooks.prune_deliveries(await store.now() + 60) == 1
    assert (await only_delivery(store))["state"] == "pending"


async def test_the_webhook_of_a_job_that_was_deleted_before_delivery_is_given_up(store: Store, sender: Sender) -> None:
    async with receiver() as there:
        await ended_job(store, there.url)
        assert await store.retention.prune(await store.now() + 60)
        await deliver(deliverer(store, sender))
        assert not there.got
    row = await only_delivery(store)
    assert (row["state"], row["last_error"]) == ("dead", "the job was deleted")


async def test_while_the_ledger_is_away_what_was_delivered_is_not_sent_again(
    store: Store, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.worker.webhooks.delivery.STORE_PAUSE_S", 0.01)
    finish, refusals = store.deliveries.finish, [StoreBusy("away"), StoreUnavailable("away")]

    async def refusing(*words: Any) -> set[str]:
        if refusals:
            raise refusals.pop()
        return await finish(*words)

    monkeypatch.setattr(store.deliveries, "finish", refusing)
    async with receiver() as there:
        await ended_job(store, there.url)
        await deliver(deliverer(store, sender))
        assert len(there.got) == 1
    assert (await only_delivery(store))["state"] == "delivered"


async def due(store: Store, tenant: str, urls: list[str]) -> None:
    ids = [(await singles(store, 1, callback_url=url, tenant=tenant))[0] for url in urls]
    await run_all(store, await new_worker(store), ids)


async def test_a_tenant_with_many_slow_receivers_delays_no_other_tenant(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a share of the places, however many names its receivers have and however early it came."""
    places = 40  # the tries begin together, each with a query to the ledger
    monkeypatch.setattr(webhooks, "IN_FLIGHT", places)

    async def never(_: Any) -> None:
        await asyncio.sleep(60)

    async def anywhere(host: str, port: int) -> list[str]:
        number = int(host.partition(".")[0]) if host[0].isdigit() else 0
        return [f"127.0.{number // 200}.{1 + number % 200}"]

    async with (
        receiver(behaviour=never, host="0.0.0.0") as slow,
        receiver() as fast,
        Sender(LOOPBACK, 500, deadline_s=20, resolve=anywhere) as sender,
    ):
        await due(store, "rival", [f"http://{number}.example.com:{slow.port}/" for number in range(1, places + 9)])
        sends = deliverer(store, sender)
        await until(sends, lambda: slow.at_once >= places // 2)
        await due(store, "acme", [f"http://calm.example.com:{fast.port}/"])
        await until(sends, lambda: len(fast.got) == 1)
        assert slow.most_at_once == places // 2, "alone it has half"
        await sends.close()


async def test_tenants_take_turns_at_the_places_whatever_their_receivers_are(store: Store) -> None:
    for tenant, receivers in (("many", 30), ("few", 2), ("one", 1)):
        await due(store, tenant, [f"https://{tenant}-{number}.example.com/" for number in range(receivers)])
    place, order = Place(), []

    def choose(due: Sequence[Due]) -> Iterator[Due]:
        return sends._choose(due)

    async with Sender(LOOPBACK, 4) as sender:
        sends = deliverer(store, sender)
        for _ in range(3):
            claimed, place = await store.deliveries.claim("worker_1", 3, 4, 60, place, choose)
            order.append(sorted(each.tenant for each in claimed))
    assert order == [["few", "many", "one"], ["few", "many", "many"], ["many"] * 3]


async def test_more_receivers_than_are_looked_at_at_once_all_have_their_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RECEIVERS_WAITING", deliveries.RECEIVERS_WAITING.limit(3))
    monkeypatch.setattr(deliveries, "TENANTS_WAITING", deliveries.TENANTS_WAITING.limit(2))
    monkeypatch.setattr(deliveries, "RECEIVERS_AT_ONCE", 3)
    monkeypatch.setattr(deliveries, "TENANTS_AT_ONCE", 2)
    for tenant in "abcde":
        await due(store, tenant, [f"https://{number}.example.com/" for number in range(7)])
    claimed, place = [], Place()
    for _ in range(40):
        some, place = await store.deliveries.claim("worker_1", 4, 4, 60, place)
        claimed += some
    assert len({(each.tenant, each.url) for each in claimed}) == 35
    assert not place.more


async def test_a_try_for_which_there_was_no_place_does_not_count(store: Store) -> None:
    class Full(Sender):
        async def post(self, *_: Any) -> Answer:
            return Answer(error="full", untried=True)

    await ended_job(store, "https://hooks.example.com")
    async with Full(LOOPBACK, 1) as sender:
        await deliver(deliverer(store, sender))
    row = await only_delivery(store)
    assert (row["state"], row["tries"], row["log"], row["claimed_by"]) == ("pending", 0, [], None)


async def until(sends: Deliverer, so: Callable[[], bool]) -> None:
    async with asyncio.timeout(18):
        while not so():
            await sends.pass_once()
