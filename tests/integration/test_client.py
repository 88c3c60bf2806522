"""The Python client: what it accepts is in the ledger, what it refuses is nowhere."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ledger_help import failed, new_worker, run_all
from redis.asyncio import Redis

from models.settings import Settings
from models.state import BatchState, JobState, Priority
from models.store import Store
from models.tenants import TenantLimits
from models.tickets import staged_ids
from models.wire import RequestError
from producer.client import Client, JobResult, open_client
from producer.ledger import UnknownId


def settings(tmp_path: Path, redis_url: str | None = None) -> Settings:
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "redis_url": redis_url,
            "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
            "chains": {"default": {"steps": ["lead/large"]}},
        }
    )


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with open_client(settings=settings(tmp_path)) as opened:
        yield opened


async def open_jobs(store: Store, batch_id: str) -> list[str]:
    return [job.id async for job in store.unfinished(batch_id)]


async def test_a_prompt_messages_and_a_body_are_accepted_alike(client: Client) -> None:
    messages = [{"role": "user", "content": "hi"}]
    for request in ("hi", messages, {"messages": messages}, {"custom_id": "x", "body": {"messages": messages}}):
        job_id = await client.enqueue(request, model="lead/small", custom_id="mine")
        view = await client.store.job_view(job_id)
        assert view is not None
        assert (view["request"], view["custom_id"]) == ('{"messages":[{"role":"user","content":"hi"}]}', "mine")
        assert (await client.store.get_chain(view["chain_id"])).steps[0].model == "small"


@pytest.mark.parametrize("request_", [{"messages": []}, {"prompt": "a", "chain": "cheep"}, 5, [1], {"a": object()}])
async def test_a_wrong_request_is_refused_and_leaves_nothing(client: Client, request_: object) -> None:
    with pytest.raises(RequestError):
        await client.enqueue(request_)
    assert await client.store.lanes() == []


async def test_a_job_is_fetched_with_its_answer_its_attempts_and_its_cost(client: Client) -> None:
    job_id = await client.enqueue("hi", custom_id="x")
    queued = await client.fetch(job_id)
    assert (queued.state, queued.ended, queued.text, queued.error) == (JobState.QUEUED, False, None, None)
    worker = await new_worker(client.store)
    await run_all(client.store, worker, [job_id])
    done = await client.wait(job_id, timeout_s=5)
    assert isinstance(done, JobResult)
    assert (done.state, done.custom_id, done.completion, done.cost_usd) == (
        JobState.SUCCEEDED,
        "x",
        {"answer": "yes"},
        0.25,
    )
    assert [(each["provider"], each["failure"], each["latency"]) for each in done.attempts] == [("lead", None, 120)]


@pytest.mark.parametrize(("word", "priority"), [("interactive", 0), ("NORMAL", 1), (Priority.BULK, 2)])
async def test_a_priority_may_be_a_word(client: Client, word: Priority | str, priority: int) -> None:
    job = await client.store.job_view(await client.enqueue("hi", priority=word))
    assert job is not None and job["priority"] == priority


@pytest.mark.parametrize("wrong", ["urgent", "", 7])
async def test_another_priority_is_refused_with_those_that_there_are(client: Client, wrong: Any) -> None:
    with pytest.raises(RequestError, match="priority must be interactive, normal or bulk"):
        await client.enqueue("hi", priority=wrong)
    with pytest.raises(RequestError, match="priority must be"):
        await client.enqueue_many(["hi"], priority=wrong)


async def test_a_failed_job_says_why(client: Client) -> None:
    job_id = await client.enqueue("hi")
    worker = await new_worker(client.store)
    await client.store.settle(worker, [failed(job) for job in await client.store.start(worker, [job_id])])
    assert (await client.fetch(job_id)).error == "no"


async def test_many_are_one_batch_with_their_own_ids_or_numbers(client: Client) -> None:
    async def requests() -> AsyncIterator[str | dict[str, str]]:
        for number in range(4_500):
            yield {"custom_id": "first", "prompt": "a"} if not number else str(number)

    batch_id = await client.enqueue_many(requests(), source="numbers")
    view = await client.fetch_batch(batch_id)
    assert (view.state, view.total, view.source, view.priority) == (
        BatchState.IN_PROGRESS,
        4_500,
        "numbers",
        Priority.BULK,
    )
    ids = await open_jobs(client.store, batch_id)
    await run_all(client.store, await new_worker(client.store), ids[:2])
    assert [line["custom_id"] async for line in client.results(batch_id)] == ["first", "2"]


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        (["a", "b", {"messages": 5}], "request 3: 'messages'"),
        ([{"id": "x", "prompt": "a"}, {"id": "x", "prompt": "b"}], "request 2: custom_id 'x'"),
        ([], "no requests"),
    ],
)
async def test_one_bad_request_refuses_the_batch(client: Client, requests: list[object], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        await client.enqueue_many(requests)
    assert await client.store.latest_batch() is None


async def test_a_source_that_breaks_off_leaves_no_batch(client: Client) -> None:
    def broken() -> object:
        yield from ("a" for _ in range(2_500))
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        await client.enqueue_many(broken())
    assert await client.store.latest_batch() is None


async def test_waiting_ends_at_its_timeout_and_with_the_batch(client: Client) -> None:
    batch_id = await client.enqueue_many(["a"])
    with pytest.raises(TimeoutError):
        await client.wait(batch_id, timeout_s=0.1)
    await client.store.cancel_batch(batch_id)
    await client.store.cancel_slice()
    await client.store.close_batches()
    view = await client.wait(batch_id, timeout_s=5)
    assert view.state == BatchState.CANCELLED


async def test_unknown_ids_are_an_error(client: Client) -> None:
    for look in (client.fetch("job_x"), client.fetch_batch("batch_x"), client.wait("x")):
        with pytest.raises(UnknownId):
            await look
    with pytest.raises(UnknownId):
        await anext(aiter(client.results("batch_x")))


async def test_a_single_job_is_staged_at_once(tmp_path: Path, redis_url: str) -> None:
    async with open_client(settings=settings(tmp_path, redis_url)) as client, Redis.from_url(redis_url) as redis:
        job_id = await client.enqueue("hi", priority=Priority.INTERACTIVE)
        assert (await staged_ids(redis))["interactive"] == [job_id]


async def test_a_job_is_accepted_while_redis_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_client(settings=settings(tmp_path, f"unix://{tmp_path}/nobody.sock")) as client:
        job_id = await client.enqueue("a secret prompt")
        assert (await client.fetch(job_id)).state is JobState.QUEUED
    assert "it starts later" in caplog.text
    assert "secret" not in caplog.text


async def test_data_rules_of_the_call_and_of_the_tenant_are_kept_with_the_job(client: Client) -> None:
    tagged = client._settings.providers["lead"].model_copy(update={"tags": {"region": ("eu",), "zdr": ("true",)}})
    client._settings = client._settings.model_copy(update={"providers": {"lead": tagged}})
    await client.store.set_tenant(TenantLimits("default", require={"zdr": ("true",)}), actor="test")
    job_id = await client.enqueue("hi", require={"region": ["eu", "ch"]}, order="cheapest")
    view = await client.store.job_view(job_id)
    assert view is not None
    chain = await client.store.get_chain(view["chain_id"])
    assert (chain.require, chain.order) == ({"region": ("ch", "eu"), "zdr": ("true",)}, "cheapest")
    batch_id = await client.enqueue_many(["a", "b"], forbid={"region": "us"})
    jobs = await open_jobs(client.store, batch_id)
    assert len(jobs) == 2
    for job in jobs:
        view = await client.store.job_view(job)
        assert view is not None
        assert (await client.store.get_chain(view["chain_id"])).forbid == {"region": ("us",)}
    with pytest.raises(RequestError, match="provider 'lead' says region = eu"):
        await client.enqueue_many(["a"], forbid={"region": "eu"})
