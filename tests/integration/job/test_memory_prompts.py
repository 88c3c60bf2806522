"""Large prompts take turns in a worker: one tenant's prompts have bounded memory and delay no other tenant."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_help import new_jobs, new_worker
from run_help import PROMPT, without_slow_start
from test_claims import ALPHA, Floor, floor

from understudy.models.jobs.execution import StartedJob
from understudy.models.state import JobState, Priority
from understudy.models.store import Store
from understudy.models.store.work.claims import LARGE_PROMPT_BYTES
from understudy.worker.job import memory
from understudy.worker.job.memory import PROMPT_BYTES, TENANT_PROMPT_BYTES, PromptRoom

LARGE = 1_000_000


def started(number: int, tenant: str, size: int) -> StartedJob:
    words = {"tokens": 1, "expires_at": 1e12, "large_bytes": size}
    return StartedJob(f"job_{number}", "", tenant, 1, "chain", Priority.NORMAL, body="", **words)  # type: ignore[arg-type]


def test_a_tenant_leaves_room_and_every_tenant_may_have_one_prompt() -> None:
    room, size = PromptRoom(), TENANT_PROMPT_BYTES // 3
    assert [room.take(started(number, "acme", size)) for number in range(4)] == [True] * 3 + [False]
    assert [room.take(started(number, "bob", size)) for number in (10, 11)] == [True, False]
    assert [room.take(started(number, "cid", size)) for number in (20, 21)] == [True, False]
    assert all(room.take(started(number, "acme", 0)) for number in range(30, 100))
    for number in (0, 10):
        room.leave(f"job_{number}")
    assert [room.take(started(number, "acme", size)) for number in (40, 41)] == [True, False]
    assert PromptRoom().take(started(1, "acme", 2 * PROMPT_BYTES))


async def test_a_claim_reads_small_prompts_only(store: Store) -> None:
    worker = await new_worker(store)
    sizes = [10, LARGE_PROMPT_BYTES - 2, LARGE_PROMPT_BYTES + 2]
    bodies = [json.dumps("é" * (size // 2), ensure_ascii=False) for size in sizes]
    made = [replace(job, body=body) for job, body in zip(await new_jobs(store, 3), bodies, strict=True)]
    await store.intake.accept_jobs("default", made)
    jobs = await store.claims.start(worker, [job.id for job in made])
    assert [(job.large_bytes, len(job.body)) for job in jobs] == [
        (0, len(bodies[0])),
        (0, len(bodies[1])),
        (len(bodies[2].encode()), 0),
    ]
    assert [(await store.claims.with_prompt(job)).body for job in jobs] == bodies


async def submitted(here: Floor, count: int, tenant: str, size: int) -> list[str]:
    body = json.dumps({"messages": [{"role": "user", "content": PROMPT + "x" * size}]})
    jobs = [replace(each, body=body, tenant=tenant) for each in await new_jobs(here.store, count, ALPHA)]
    await here.store.intake.accept_jobs("default", jobs)
    await here.stage(jobs)
    return [each.id for each in jobs]


async def test_what_does_not_fit_goes_back_and_holds_no_slot(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "PROMPT_BYTES", 5 * LARGE)
    monkeypatch.setattr(memory, "TENANT_PROMPT_BYTES", int(2.5 * LARGE))
    async with floor(redis_url, tmp_path, {"latency_s": 3.0}, concurrency=20) as here:
        await without_slow_start(here.scene.redis, "alpha")
        hogs = await submitted(here, 8, "acme", LARGE)

        async def others_wait() -> bool:
            views = [await here.store.jobs.view(each) for each in hogs]
            reasons = [view.put_back_for for view in views if view and view.state is JobState.QUEUED]
            return reasons == [memory.WAITS_FOR_ROOM] * 6

        await here.until(others_wait)
        await here.until_all(await submitted(here, 1, "bob", LARGE) + await here.submit(3), JobState.SUCCEEDED)
        assert JobState.QUEUED in await here.states(hogs)
