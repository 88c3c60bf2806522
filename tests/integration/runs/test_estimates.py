"""The expected cost of a batch is known as soon as it is accepted, whichever way it came."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledger_help import failed, new_worker

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.jobs.views import BatchView
from understudy.models.objects.batch import batch_object
from understudy.models.store import Store
from understudy.producer.client import AsyncClient
from understudy.producer.ingest.batch_filler import Filler
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.reruns import retry_failed
from understudy.producer.runs.runs import accept

LEAD = {
    "kind": "openai",
    "base_url": "http://127.0.0.1:1/v1",
    "prices": {"large": {"input": 1_000.0, "output": 2_000.0}},
}
SETTINGS = Settings.model_validate({"providers": {"lead": LEAD}})
BODY = {"model": "lead/large", "max_tokens": 5, "messages": [{"role": "user", "content": "x" * 64}]}
LINE_USD = (20 * 1_000 + 5 * 2_000) / 1e6


def lines(count: int, unpriced: int = 0) -> bytes:
    bodies = [BODY] * count + [{**BODY, "model": "lead/unheard-of"}] * unpriced
    words = {"method": "POST", "url": "/v1/chat/completions"}
    return b"".join(
        json.dumps({"custom_id": f"r{number}", **words, "body": body}).encode() + b"\n"
        for number, body in enumerate(bodies)
    )


async def seen(store: Store, batch_id: str) -> BatchView:
    view = await store.batches.view(batch_id)
    assert view is not None
    return view


async def submitted(store: Store, folder: Path, content: bytes) -> BatchView:
    source = folder / "in.jsonl"
    source.write_bytes(content)
    batch = NewBatch(new_id("batch"))
    await accept(store, SETTINGS, source, Shape(), batch, skip_bad=False)
    return await seen(store, batch.id)


async def test_a_submitted_file_is_estimated_in_all_its_slices(store: Store, tmp_path: Path) -> None:
    view = await submitted(store, tmp_path, lines(2_500, unpriced=3))
    assert (view.estimated_usd, view.unpriced_lines) == (pytest.approx(2_500 * LINE_USD), 3)
    shown = batch_object(view, None)["understudy"]
    assert (shown["estimated_cost_usd"], shown["unpriced_lines"]) == (pytest.approx(2_500 * LINE_USD), 3)


async def test_without_a_known_price_there_is_no_estimate(store: Store, tmp_path: Path) -> None:
    view = await submitted(store, tmp_path, lines(0, unpriced=2))
    assert (view.estimated_usd, view.unpriced_lines) == (None, 2)
    assert batch_object(view, None)["understudy"]["estimated_cost_usd"] is None


async def test_what_a_program_submits_is_estimated(store: Store) -> None:
    client = AsyncClient.on(SETTINGS, store)
    batch = await client.submit_batch([BODY] * 4)
    assert batch.estimated_usd == pytest.approx(4 * LINE_USD)


async def test_a_batch_of_the_http_api_is_estimated_once_it_is_filled(store: Store) -> None:
    """Even by a filler that takes over in the middle and has not read the first lines."""
    content, batch_id = lines(1_200), new_id("batch")
    new = NewBatch(batch_id, expires_at=await store.now() + 3_600, input_file_id="file_1", options="{}")
    await store.intake.accept_batch(new)

    async def half(_: str) -> AsyncIterator[bytes]:
        yield content[: len(content) // 2]
        raise ConnectionError

    async def whole(_: str) -> AsyncIterator[bytes]:
        yield content

    first = Filler(SETTINGS, store, half, "first")
    with pytest.raises(ConnectionError):
        await first.step()
    await first.release()
    assert (await seen(store, batch_id)).estimated_usd is None
    assert await Filler(SETTINGS, store, whole, "second").step()
    view = await seen(store, batch_id)
    assert (view.total, view.estimated_usd) == (1_200, pytest.approx(1_200 * LINE_USD))


async def test_a_retry_is_estimated_by_the_lines_that_it_runs_again(store: Store, tmp_path: Path) -> None:
    view = await submitted(store, tmp_path, lines(5))
    worker = await new_worker(store)
    ids = [job.id async for job in store.reruns.unfinished(view.id)][:2]
    await store.claims.settle(
        worker, [failed(job, FailureClass.SERVER) for job in await store.claims.start(worker, ids)]
    )
    again = (await retry_failed(store, SETTINGS, view.id)).batch_id
    assert again is not None
    assert (await seen(store, again)).estimated_usd == pytest.approx(2 * LINE_USD)
