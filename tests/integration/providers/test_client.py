"""The Python client: what it accepts is in the ledger, and what it refuses leaves no trace."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ledger_help import failed, new_worker, request_of, run_all, succeeded
from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import of_batch
from understudy.models.failure import FailureClass
from understudy.models.queue.keys import ENDED
from understudy.models.queue.tickets import staged_ids
from understudy.models.store import Store, open_store
from understudy.models.tenants import TenantLimits
from understudy.producer.client import (
    AsyncClient,
    BatchState,
    Client,
    InputError,
    JobState,
    NoAnswer,
    NotPossible,
    RequestError,
    UnderstudyError,
    UnknownId,
    WaitTimeout,
)
from understudy.producer.client.connection import Connection
from understudy.producer.single_jobs import JOBS_PATH, named_by


def settings(tmp_path: Path, redis_url: str | None = None, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "redis_url": redis_url,
            "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", **more}},
            "chains": {"default": {"steps": ["lead/large"]}, "other": {"steps": ["lead/small"]}},
        }
    )


@pytest.fixture
async def client(store: Store, tmp_path: Path) -> AsyncClient:
    return AsyncClient.on(settings(tmp_path), store)


async def open_jobs(store: Store, batch_id: str) -> list[str]:
    return [job.id async for job in store.reruns.unfinished(batch_id)]


async def fail_all(store: Store, ids: Sequence[str], cls: FailureClass = FailureClass.SERVER) -> None:
    worker = await new_worker(store)
    await store.claims.settle(worker, [failed(job, cls) for job in await store.claims.start(worker, ids)])


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


@pytest.mark.parametrize(
    ("requests", "arguments", "reason"),
    [
        (["hi"], {"budget_usd": 0}, "'budget_usd'"),
        (["hi"], {"weight": 1_000}, "'weight'"),
        (["hi"], {"prompt": "Describe {name}"}, "'prompt' applies only to a CSV file"),
        ("hi", {}, "many requests"),
        ({"prompt": "hi"}, {}, "many requests"),
    ],
)
async def test_a_batch_is_refused_for_what_it_cannot_be(
    client: AsyncClient, store: Store, requests: Any, arguments: Any, reason: str
) -> None:
    with pytest.raises(RequestError, match=reason):
        await client.submit_batch(requests, **arguments)
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


async def test_many_at_once_with_one_key_are_one_job_and_one_batch(client: AsyncClient) -> None:
    jobs = await asyncio.gather(*(client.submit("hi", idempotency_key="j") for _ in range(4)))
    assert len({job.id for job in jobs}) == 1
    batches = await asyncio.gather(*(client.submit_batch(["a", "b"], idempotency_key="b") for _ in range(4)))
    assert len({batch.id for batch in batches}) == 1
    assert [batch.id for batch in await client.list_batches()] == [batches[0].id]
    assert (await client.get_batch(batches[0].id)).total == 2


async def test_the_key_of_a_batch_names_its_requests_and_its_words(client: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"prompt": "a"}\n')
    for requests in (["a"], file):
        key = str(type(requests))
        first = await client.submit_batch(requests, idempotency_key=key)
        assert (await client.submit_batch(requests, idempotency_key=key)).id == first.id
        for other in ({"weight": 5.0}, {"model": "lead/small"}, {"metadata": {"a": "b"}}):
            with pytest.raises(RequestError, match="used for another request"):
                await client.submit_batch(requests, idempotency_key=key, **other)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="used for another request"):
        await client.submit_batch(["b"], idempotency_key=str(list))
    assert len(await client.list_batches()) == 2


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


async def test_batches_are_listed_by_pages(client: AsyncClient) -> None:
    ids = [(await client.submit_batch(["a"])).id for _ in range(3)]
    first = await client.list_batches(limit=2)
    assert [batch.id for batch in first] == ids[:0:-1]
    rest = await client.list_batches(limit=2, after=first.next_after or "")
    assert ([batch.id for batch in rest], rest.next_after) == (ids[:1], None)


async def test_cancelling_is_for_what_has_not_ended(client: AsyncClient, store: Store) -> None:
    job, done = await client.submit("a"), await client.submit("b")
    await run_all(store, await new_worker(store), [done.id])
    assert (await client.cancel(job.id)).state is JobState.CANCELLED
    assert (await client.cancel(job.id)).state is JobState.CANCELLED
    assert (await client.cancel(done.id)).state is JobState.SUCCEEDED
    assert "cancelled before" in ((await client.wait(job.id)).error or "")
    acts = await store.audit.entries(action="job.cancel")
    assert [(row["subject"], row["actor"].split(":")[0]) for row in acts] == [(job.id, "python")]


async def test_many_are_one_batch_with_their_own_ids_or_numbers(client: AsyncClient, store: Store) -> None:
    async def requests() -> AsyncIterator[str | dict[str, str]]:
        for number in range(4_500):
            yield {"custom_id": "first", "prompt": "a"} if not number else str(number)

    batch = await client.submit_batch(
        requests(),
        source="numbers",
        metadata={"a": "b"},
        callback_url="https://example.com/",
        budget_usd=None,
        weight=2,
    )
    assert (batch.state, batch.total, batch.source, batch.priority, batch.metadata, batch.callback_url) == (
        BatchState.IN_PROGRESS,
        4_500,
        "numbers",
        "bulk",
        {"a": "b"},
        "https://example.com/",
    )
    ids = await open_jobs(store, batch.id)
    await run_all(store, await new_worker(store), ids[:2])
    assert [(result.custom_id, result.ok) async for result in client.results(batch.id)] == [
        ("first", True),
        ("2", True),
    ]
    batch = await client.get_batch(batch.id)
    assert (batch.succeeded, batch.unanswered, batch.counts[JobState.QUEUED]) == (2, 0, 4_498)


async def test_a_file_is_a_batch_in_any_format(client: AsyncClient, store: Store, tmp_path: Path) -> None:
    sheet = tmp_path / "things.csv"
    sheet.write_text("sku,name\na1,desk\nb2,lamp\n")
    batch = await client.submit_batch(sheet, prompt="Describe {name}.", id_column="sku", model="lead/small")
    assert (batch.total, batch.source) == (2, "things.csv")
    (first, _) = await open_jobs(store, batch.id)
    asked = await store.reruns.asked(first)
    assert asked is not None and (asked.custom_id, str(asked.chain.steps[0])) == ("a1", "lead/small")
    assert "Describe desk." in asked.body
    with pytest.raises(InputError, match="--prompt"):
        await client.submit_batch(sheet)
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"prompt": "a"}\n{"messages": 5}\n')
    with pytest.raises(RequestError, match="line 2: 'messages'"):
        await client.submit_batch(lines)
    assert len(await client.list_batches()) == 1


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        (["a", "b", {"messages": 5}], "request 3: 'messages'"),
        ([{"id": "x", "prompt": "a"}, {"id": "x", "prompt": "b"}], "request 2: custom_id 'x'"),
        ([], "no requests"),
    ],
)
async def test_one_bad_request_refuses_the_batch(client: AsyncClient, store: Store, requests: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        await client.submit_batch(requests)
    assert await store.batches.latest() is None


async def test_a_source_that_breaks_off_leaves_no_batch(client: AsyncClient, store: Store) -> None:
    def broken() -> Any:
        yield from ("a" for _ in range(2_500))
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        await client.submit_batch(broken())
    assert await store.batches.latest() is None


async def test_a_batch_is_paused_and_goes_on_with_a_new_budget(store: Store, tmp_path: Path) -> None:
    client = AsyncClient.on(settings(tmp_path, prices={"large": {"input": 1, "output": 1}}), store)
    batch = await client.submit_batch(["a"], budget_usd=5)
    assert (batch.paused, batch.budget_usd) == (None, 5.0)
    assert (await client.pause_batch(batch.id, "for lunch")).paused == "for lunch"
    batch = await client.resume_batch(batch.id, budget_usd=7)
    assert (batch.paused, batch.budget_usd) == (None, 7.0)
    assert (await store.budgets.read([of_batch(batch.id)]))[of_batch(batch.id)].base_usd == 7.0
    assert (await client.cancel_batch(batch.id)).state is BatchState.CANCELLED
    assert (await client.cancel_batch(batch.id)).state is BatchState.CANCELLED
    for late in (client.pause_batch(batch.id), client.resume_batch(batch.id)):
        with pytest.raises(NotPossible, match="cancelled"):
            await late
    acts = [row["action"] for row in await store.audit.entries()]
    assert sorted(acts) == ["batch.cancel", "batch.pause", "batch.resume"]


async def test_what_a_paused_batch_has_not_asked_takes_another_chain(client: AsyncClient, store: Store) -> None:
    batch = await client.submit_batch(["a"])
    await client.resume_batch(batch.id, chain="other")
    (job_id,) = await open_jobs(store, batch.id)
    assert (await client.get(job_id)).chain == ("lead/small",)


async def test_what_failed_of_a_batch_is_retried_as_a_new_one(client: AsyncClient, store: Store) -> None:
    batch = await client.submit_batch(["a", "b", "c"])
    ids = await open_jobs(store, batch.id)
    await run_all(store, await new_worker(store), ids[:1])
    await fail_all(store, ids[1:2])
    await fail_all(store, ids[2:], FailureClass.BAD_REQUEST)
    again = await client.retry_batch(batch.id)
    assert (again.retry_of, again.total) == (batch.id, 1)
    assert (await client.get_batch(batch.id)).retries == (again.id,)
    await run_all(store, await new_worker(store), await open_jobs(store, again.id))
    assert [result.ok async for result in client.results(batch.id)] == [True, True, False]
    with pytest.raises(NotPossible, match=r"nothing to retry .* everything=True retries them, too"):
        await client.retry_batch(batch.id)
    assert (await client.retry_batch(batch.id, everything=True)).total == 1
    assert (await client.retry_batch(batch.id, answered_by=["lead"])).total == 2


async def test_waiting_ends_at_its_timeout_and_with_the_batch(client: AsyncClient) -> None:
    batch = await client.submit_batch(["a"])
    with pytest.raises(WaitTimeout, match=r"has not ended within 0\.1 seconds"):
        await client.wait_batch(batch.id, timeout_s=0.1)
    waiting = asyncio.create_task(client.wait_batch(batch.id, timeout_s=30))
    await client.cancel_batch(batch.id)
    assert (await waiting).state == BatchState.CANCELLED


async def test_unknown_ids_are_an_error(client: AsyncClient) -> None:
    for look in (
        *(client.get("job_x"), client.wait("job_x"), client.cancel("job_x"), client.retry("job_x")),
        *(client.get_batch("b"), client.wait_batch("b"), client.pause_batch("b"), client.resume_batch("b")),
        *(client.cancel_batch("b"), client.retry_batch("b"), anext(client.results("b"))),
    ):
        with pytest.raises(UnknownId):
            await look


async def test_a_client_sees_its_tenants_work_only(client: AsyncClient, store: Store, tmp_path: Path) -> None:
    job, batch = await client.submit("a"), await client.submit_batch(["a"])
    other = AsyncClient.on(settings(tmp_path), store, tenant="other")
    for look in (other.get(job.id), other.cancel(job.id), other.get_batch(batch.id), other.cancel_batch(batch.id)):
        with pytest.raises(UnknownId):
            await look
    assert (len(await other.list_jobs()), len(await other.list_batches())) == (0, 0)
    own = await other.submit_batch(["a"])
    assert (await store.batches.view(own.id)).tenant == "other"  # type: ignore[union-attr]


async def test_a_single_job_is_staged_at_once_and_its_end_is_told(tmp_path: Path, redis_url: str) -> None:
    async with (
        AsyncClient(settings=settings(tmp_path, redis_url)) as client,
        Redis.from_url(redis_url) as redis,
        redis.pubsub() as ended,
    ):
        await ended.subscribe(ENDED)
        job = await client.submit("hi", priority="interactive")
        assert (await staged_ids(redis))["interactive"] == [job.id]
        assert (await client.cancel(job.id)).state is JobState.CANCELLED
        async with asyncio.timeout(10):
            while (told := await ended.get_message(ignore_subscribe_messages=True, timeout=1)) is None:
                continue
        assert told["data"] == job.id.encode()


async def test_a_job_is_accepted_while_redis_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncClient(settings=settings(tmp_path, f"unix://{tmp_path}/nobody.sock")) as client:
        job = await client.submit("a secret prompt")
        assert (await client.get(job.id)).state is JobState.QUEUED
    assert "they start later" in caplog.text
    assert "secret" not in caplog.text


async def test_data_rules_of_the_call_and_of_the_tenant_are_kept_with_the_job(store: Store, tmp_path: Path) -> None:
    client = AsyncClient.on(settings(tmp_path, tags={"region": "eu", "zdr": True}), store)
    await store.tenants.set_limits(TenantLimits("default", require={"zdr": ("true",)}), actor="test")
    job = await client.submit("hi", require={"region": ["eu", "ch"]}, order="cheapest")
    asked = await store.reruns.asked(job.id)
    assert asked is not None
    assert (asked.chain.require, asked.chain.order) == ({"region": ("ch", "eu"), "zdr": ("true",)}, "cheapest")
    batch = await client.submit_batch(["a", "b"], forbid={"region": "us"})
    chains = [each.chain async for each in store.reruns.unfinished(batch.id)]
    assert [chain.forbid for chain in chains] == [{"region": ("us",)}] * 2
    with pytest.raises(RequestError, match="provider 'lead' has region = eu"):
        await client.submit_batch(["a"], forbid={"region": "eu"})


async def test_a_client_that_is_not_open_says_so(tmp_path: Path) -> None:
    client = AsyncClient(settings=settings(tmp_path))
    with pytest.raises(RuntimeError, match="not open"):
        await client.submit("hi")
    await client.open()
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="not open"):
        await client.list_jobs()


@pytest.mark.servers
async def test_urls_win_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str, redis_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(
            variable, "redis://127.0.0.1:1/0" if variable == "REDIS_URL" else "postgresql://127.0.0.1:1/x"
        )
    (tmp_path / "understudy.toml").write_text('[providers.lead]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n')
    async with open_store(postgresql_url, tmp_path, migrate=True) as store:
        await store.tenants.set_limits(TenantLimits("default"), actor="test")  # without what other tests left there
    async with (
        AsyncClient(database_url=postgresql_url, redis_url=redis_url) as client,
        Redis.from_url(redis_url) as redis,
    ):
        job = await client.submit("hi", model="lead/large")
        assert (await client.get(job.id)).state is JobState.QUEUED
        assert (await staged_ids(redis))["normal"] == [job.id]
    assert not (tmp_path / "data").exists()


def test_both_clients_have_the_same_methods() -> None:
    def calls(cls: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}

    assert calls(Client) == calls(AsyncClient)
    assert calls(Connection) == {"open", "close"}
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


def test_all_errors_have_one_root() -> None:
    from understudy.producer.client import errors

    for name in errors.__all__:
        assert issubclass(getattr(errors, name), UnderstudyError)
        assert name in (errors.__doc__ or "")
    assert issubclass(WaitTimeout, TimeoutError) and issubclass(RequestError, ValueError)
