"""Batches of the Python client: accepted completely or not at all."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from client_help import fail_all, open_jobs, settings
from ledger_help import new_worker, run_all

from understudy.models.costs.budgets import of_batch
from understudy.models.failure import FailureClass
from understudy.models.store import Store
from understudy.producer.client import (
    AsyncClient,
    BatchState,
    InputError,
    JobState,
    NotPossible,
    RequestError,
)


@pytest.fixture
async def client(store: Store, tmp_path: Path) -> AsyncClient:
    return AsyncClient.on(settings(tmp_path), store)


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


async def test_batches_are_listed_by_pages(client: AsyncClient) -> None:
    ids = [(await client.submit_batch(["a"])).id for _ in range(3)]
    first = await client.list_batches(limit=2)
    assert [batch.id for batch in first] == ids[:0:-1]
    rest = await client.list_batches(limit=2, after=first.next_after or "")
    assert ([batch.id for batch in rest], rest.next_after) == (ids[:1], None)


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
