"""Jobs of the Python client: what it accepts is in the ledger, and what it refuses leaves no trace."""

import json
from pathlib import Path
from typing import Any

import pytest
from client_help import fail_all, open_jobs, settings
from ledger_help import new_worker, request_of, run_all, succeeded

from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.producer.client import (
    AsyncClient,
    JobState,
    NoAnswer,
    NotPossible,
    RequestError,
)
from understudy.producer.single_jobs import JOBS_PATH, named_by


@pytest.fixture
async def client(store: Store, tmp_path: Path) -> AsyncClient:
    return AsyncClient.on(settings(tmp_path), store)


async def test_a_prompt_messages_and_a_body_are_accepted_alike(client: AsyncClient, store: Store) -> None:
    messages = [{"role": "user", "content": "hi"}]
    for request in ("hi", messages, {"messages": messages}, {"custom_id": "x", "body": {"messages": messages}}):
        job = await client.submit(request, model="lead/small", custom_id="mine")
        assert (await request_of(store, job.id), job.custom_id) == (
            '{"messages":[{"role":"user","content":"hi"}]}',
            "mine",
        )
        assert (job.chain, job.priority, job.batch_id, job.state) == (("lead/small",), "normal", None, JobState.QUEUED)


async def test_a_job_keeps_what_its_request_says(client: AsyncClient, store: Store) -> None:
    job = await client.submit(
        {"prompt": "hi", "metadata": {"of": "the body"}, "max_tokens": 5},
        priority="interactive",
        expires_in_s=60,
        metadata={"of": "the arguments"},
        callback_url="https://example.com/done",
    )
    assert job == await client.get(job.id)
    assert (job.priority, job.metadata, job.callback_url) == (
        "interactive",
        {"of": "the body"},
        "https://example.com/done",
    )
    assert job.expires_at - job.created_at == pytest.approx(60)
    assert json.loads(await request_of(store, job.id) or "")["max_tokens"] == 5


async def test_embeddings_are_jobs_too(client: AsyncClient) -> None:
    job = await client.submit({"url": "/v1/embeddings", "body": {"input": "hi"}})
    assert (await client.get(job.id)).state is JobState.QUEUED


@pytest.mark.parametrize("request_", [{"messages": []}, {"prompt": "a", "chain": "cheep"}, 5, [1], {"a": object()}])
async def test_a_wrong_request_is_refused_and_leaves_nothing(client: AsyncClient, store: Store, request_: Any) -> None:
    with pytest.raises(RequestError):
        await client.submit(request_)
    assert await store.planning.lanes() == []


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ({"priority": "urgent"}, "'priority' must be one of interactive, normal, bulk"),
        ({"expires_in_s": 0}, "'expires_in_s' must be"),
        ({"metadata": {"a": 1}}, "'metadata'"),
        ({"callback_url": "ftp://example.com"}, "'callback_url'"),
        ({"idempotency_key": ""}, "Idempotency-Key must have"),
        ({"modle": "lead/large"}, "'modle'.*model"),
    ],
)
async def test_a_wrong_argument_is_named(client: AsyncClient, store: Store, argument: Any, reason: str) -> None:
    for submitted in (client.submit("hi", **argument), client.submit_batch(["hi"], **argument)):
        with pytest.raises(RequestError, match=reason):
            await submitted
    assert await store.planning.lanes() == []
    assert await store.batches.latest() is None


async def test_the_same_key_and_request_are_one_job(client: AsyncClient, store: Store) -> None:
    first = await client.submit("hi", model="lead/large", idempotency_key="k")
    assert (await client.submit("hi", model="lead/large", idempotency_key="k")).id == first.id
    for prompt, model in (("ho", "lead/large"), ("hi", "lead/small")):
        with pytest.raises(RequestError, match="used for another request"):
            await client.submit(prompt, model=model, idempotency_key="k")
    assert len(await client.list_jobs()) == 1


async def test_a_key_names_the_same_request_over_http(client: AsyncClient, store: Store) -> None:
    body = {"model": "lead/large", "messages": [{"role": "user", "content": "hi"}], "metadata": {"a": "b"}}
    named = named_by("k", JOBS_PATH, body)
    assert named is not None
    job = await client.submit("hi", model="lead/large", metadata={"a": "b"}, idempotency_key="k")
    made = await store.intake.made_by("default", named)
    assert made is not None and made.object_id == job.id


async def test_a_result_has_the_answer_and_the_job_the_calls_and_the_cost(client: AsyncClient, store: Store) -> None:
    job = await client.submit("hi", custom_id="x")
    assert (job.ended, job.error, job.attempts) == (False, None, ())
    await run_all(store, await new_worker(store), [job.id])
    result = await client.wait(job.id, timeout_s=5)
    assert (result.ok, result.state, result.custom_id, result.completion) == (
        True,
        JobState.SUCCEEDED,
        "x",
        {"answer": "yes"},
    )
    assert (result.error, result.provider, result.line["custom_id"]) == (None, "lead", "x")
    done = await client.get(job.id)
    assert (done.ended, done.cost_usd, done.provider) == (True, 0.25, "lead")
    assert [(each.provider, each.failure, each.latency_ms) for each in done.attempts] == [("lead", None, 120)]


async def test_the_answer_of_a_failed_job_is_an_error_that_says_why(client: AsyncClient, store: Store) -> None:
    job = await client.submit("hi")
    await fail_all(store, [job.id])
    result = await client.wait(job.id, timeout_s=5)
    assert (result.ok, result.error) == (False, "no")
    with pytest.raises(NoAnswer, match=f"{job.id} has no answer; it is failed: no") as raised:
        _ = result.text
    assert raised.value.result is result


async def test_an_answer_that_was_removed_is_told(client: AsyncClient, store: Store) -> None:
    job = await client.submit("hi")
    worker = await new_worker(store)
    answers = [succeeded(each) for each in await store.claims.start(worker, [job.id])]
    for each in answers:
        assert each.result is not None
        each.result.body = None
    await store.claims.settle(worker, answers)
    result = await client.wait(job.id)
    assert (result.ok, result.state) == (False, JobState.SUCCEEDED)
    with pytest.raises(NoAnswer, match="deleted"):
        _ = result.completion


async def test_a_failed_job_is_retried_as_a_new_one(client: AsyncClient, store: Store) -> None:
    old = await client.submit("hi", metadata={"a": "b"}, custom_id="x", priority="interactive", expires_in_s=100)
    with pytest.raises(NotPossible, match="queued"):
        await client.retry(old.id)
    await fail_all(store, [old.id])
    new = await client.retry(old.id)
    assert (new.state, new.chain, new.custom_id, new.metadata, new.priority) == (
        JobState.QUEUED,
        ("lead/large",),
        "x",
        {"a": "b"},
        "interactive",
    )
    assert new.expires_at - new.created_at == pytest.approx(100)
    asked = [await store.reruns.asked(each) for each in (old.id, new.id)]
    assert asked[0] is not None and asked[1] is not None and asked[0].body == asked[1].body
    assert (await client.retry(old.id, chain="other")).chain == ("lead/small",)
    await run_all(store, await new_worker(store), [new.id])
    with pytest.raises(NotPossible, match="succeeded"):
        await client.retry(new.id)
    batch = await client.submit_batch(["a"])
    (of_batch_id,) = await open_jobs(store, batch.id)
    with pytest.raises(NotPossible, match=f"retry_batch\\('{batch.id}'\\)"):
        await client.retry(of_batch_id)


async def test_a_retry_keeps_the_rules_that_its_tenant_has_by_now(store: Store, tmp_path: Path) -> None:
    client = AsyncClient.on(settings(tmp_path, tags={"region": "us"}), store)
    job = await client.submit("hi")
    await fail_all(store, [job.id])
    await store.tenants.set_limits(TenantLimits("default", forbid={"region": ("us",)}), actor="test")
    with pytest.raises(RequestError, match="region"):
        await client.retry(job.id)


async def test_jobs_are_listed_by_pages_and_filters(client: AsyncClient, store: Store) -> None:
    ids = [(await client.submit(str(number))).id for number in range(5)]
    await run_all(store, await new_worker(store), ids[:1])
    first = await client.list_jobs(limit=2)
    assert ([job.id for job in first], first.next_after) == (ids[:2:-1], ids[3])
    rest = await client.list_jobs(limit=3, after=first.next_after or "")
    assert ([job.id for job in rest], rest.next_after) == (ids[2::-1], None)
    assert [job.id for job in await client.list_jobs(state=JobState.SUCCEEDED)] == ids[:1]
    assert [job.id for job in await client.list_jobs(provider="lead")] == ids[:1]
    for wrong in ({"state": "done"}, {"limit": 0}):
        with pytest.raises(RequestError):
            await client.list_jobs(**wrong)  # type: ignore[arg-type]
