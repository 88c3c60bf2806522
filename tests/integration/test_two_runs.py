"""Two runs into one output at once would ask the same lines."""

import asyncio
from pathlib import Path

import pytest
from ledger_help import open_batch

from models.settings import Settings
from models.store import Store
from producer.intake import Shape
from producer.main_job import wait_for_another
from producer.resuming import begin
from producer.runs import OtherRun, RunRequest


@pytest.fixture
def request_of_run(tmp_path: Path) -> RunRequest:
    return RunRequest(tmp_path / "in.jsonl", tmp_path / "out.jsonl", Shape())


async def test_who_comes_after_a_killed_run_waits_until_nobody_can_be_at_work(
    store: Store, request_of_run: RunRequest
) -> None:
    said: list[str] = []
    await wait_for_another(store, request_of_run, said.append)
    assert said == []
    batch_id, _ = await open_batch(store, 1, runs_until=0.0, identity=f"{request_of_run.run_id}-1")
    await store.keep_run([batch_id], 0.5)
    await wait_for_another(store, request_of_run, said.append)
    assert "out.jsonl was at work a moment ago" in said[0]
    assert await store.lease_left_s(request_of_run.run_id) <= 0


async def test_who_comes_beside_a_run_that_lives_is_refused(store: Store, request_of_run: RunRequest) -> None:
    batch_id, _ = await open_batch(store, 1, runs_until=0.0, identity=f"{request_of_run.run_id}-1")
    await store.keep_run([batch_id], 30.0)

    async def live() -> None:
        while True:
            await asyncio.sleep(0.1)
            await store.keep_run([batch_id], 30.0)

    alive = asyncio.create_task(live())
    try:
        with pytest.raises(OtherRun, match=r"is at work on .*out\.jsonl; wait for it, or stop it"):
            await wait_for_another(store, request_of_run, lambda _: None)
    finally:
        alive.cancel()


async def test_an_output_of_an_earlier_version_is_not_taken_for_a_new_one(
    store: Store, request_of_run: RunRequest
) -> None:
    settings = Settings.model_validate(
        {
            "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
            "chains": {"default": {"steps": ["lead/large"]}},
        }
    )
    request_of_run.source.write_text('{"prompt":"a"}\n')
    old, _ = await open_batch(store, 1, identity=f"{request_of_run.run_id}-{'0' * 64}")
    with pytest.raises(OtherRun, match="an earlier version of Understudy"):
        await begin(store, settings, request_of_run)
    assert await store.batch_view(old) is not None
