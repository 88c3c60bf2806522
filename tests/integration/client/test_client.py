"""The Python client as a whole: waiting, tenants, connections, and what both clients share."""

import asyncio
import inspect
import re
from pathlib import Path

import pytest
from client_help import settings
from ledger_help import new_worker, run_all
from redis.asyncio import Redis

from understudy.models.queue.keys import ENDED
from understudy.models.queue.tickets import staged_ids
from understudy.models.store import Store, open_store
from understudy.models.tenants import TenantLimits
from understudy.producer.client import (
    AsyncClient,
    BatchState,
    Client,
    JobState,
    RequestError,
    UnderstudyError,
    UnknownId,
    WaitTimeout,
)
from understudy.producer.client.connection import Connection


@pytest.fixture
async def client(store: Store, tmp_path: Path) -> AsyncClient:
    return AsyncClient.on(settings(tmp_path), store)


async def test_many_at_once_with_one_key_are_one_job_and_one_batch(client: AsyncClient) -> None:
    jobs = await asyncio.gather(*(client.submit("hi", idempotency_key="j") for _ in range(4)))
    assert len({job.id for job in jobs}) == 1
    batches = await asyncio.gather(*(client.submit_batch(["a", "b"], idempotency_key="b") for _ in range(4)))
    assert len({batch.id for batch in batches}) == 1
    assert [batch.id for batch in await client.list_batches()] == [batches[0].id]
    assert (await client.get_batch(batches[0].id)).total == 2


async def test_cancelling_is_for_what_has_not_ended(client: AsyncClient, store: Store) -> None:
    job, done = await client.submit("a"), await client.submit("b")
    await run_all(store, await new_worker(store), [done.id])
    assert (await client.cancel(job.id)).state is JobState.CANCELLED
    assert (await client.cancel(job.id)).state is JobState.CANCELLED
    assert (await client.cancel(done.id)).state is JobState.SUCCEEDED
    assert "cancelled before" in ((await client.wait(job.id)).error or "")
    acts = await store.audit.entries(action="job.cancel")
    assert [(row["subject"], row["actor"].split(":")[0]) for row in acts] == [(job.id, "python")]


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
    from understudy.producer import client

    exported = [getattr(client, name) for name in client.__all__]
    errors = [each for each in exported if isinstance(each, type) and issubclass(each, Exception)]
    drawn = re.findall(r"── (\w+)", client.errors.__doc__ or "")
    assert sorted(["UnderstudyError", *drawn]) == sorted(each.__name__ for each in errors)
    assert all(issubclass(each, UnderstudyError) for each in errors)
    assert issubclass(WaitTimeout, TimeoutError) and issubclass(RequestError, ValueError)
