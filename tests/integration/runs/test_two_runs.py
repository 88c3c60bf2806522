"""Two runs into one output at once would ask the same lines."""

import asyncio
from pathlib import Path

import pytest
from ledger_help import open_batch

from understudy.models.config.settings import Settings
from understudy.models.store import Store
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.lease import exclusive_run
from understudy.producer.runs.resume import begin
from understudy.producer.runs.runs import OtherRun, Run, RunRequest

SETTINGS = Settings.model_validate(
    {
        "providers": {"lead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}},
        "chains": {"default": {"steps": ["lead/large"]}},
    }
)


@pytest.fixture
def request_of_run(tmp_path: Path) -> RunRequest:
    return RunRequest(tmp_path / "in.jsonl", tmp_path / "out.jsonl", Shape())


async def test_a_run_after_a_killed_one_waits_until_the_killed_one_must_have_ended(
    store: Store, request_of_run: RunRequest
) -> None:
    said: list[str] = []
    async with exclusive_run(store, request_of_run, said.append):
        assert said == []
    await store.runs.take(request_of_run.run_id, 0.5)
    async with exclusive_run(store, request_of_run, said.append):
        assert "out.jsonl a moment ago" in said[0]


async def test_a_second_run_is_rejected_while_the_first_one_lives(
    store: Store, request_of_run: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.producer.runs.lease.RENEW_S", 0.1)
    async with exclusive_run(store, request_of_run, lambda _: None):
        with pytest.raises(OtherRun, match=r"is writing to .*out\.jsonl; wait for it or stop it"):
            async with exclusive_run(store, request_of_run, lambda _: None):
                pass
    async with exclusive_run(store, request_of_run, lambda _: None):
        pass


async def test_of_two_runs_that_begin_at_the_same_time_one_accepts_the_input(
    store: Store, request_of_run: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.producer.runs.lease.RENEW_S", 0.1)
    request_of_run.source.write_text('{"prompt":"a"}\n' * 3)
    refused = asyncio.Event()

    async def accept() -> Run:
        async with exclusive_run(store, request_of_run, lambda _: None):
            run = await begin(store, SETTINGS, request_of_run)
            await refused.wait()
            return run

    both = [asyncio.create_task(accept()) for _ in range(2)]
    (first,), (second,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(first.exception(), OtherRun)
    refused.set()
    run = await second
    assert run.standing.total == 3 and await store.runs.batches_of(run.id) == run.batches


async def test_an_output_of_an_earlier_version_is_not_taken_for_a_new_one(
    store: Store, request_of_run: RunRequest
) -> None:
    request_of_run.source.write_text('{"prompt":"a"}\n')
    old, _ = await open_batch(store, 1, identity=f"{request_of_run.run_id}-{'0' * 64}")
    with pytest.raises(OtherRun, match="an earlier version of Understudy"):
        await begin(store, SETTINGS, request_of_run)
    assert await store.batches.view(old) is not None
