"""While a slow step runs, another one is asked: the first good answer counts, and the possible cost of the other is
reported."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from ledger_help import new_worker, open_batch, run_all
from run_help import Stage, answered, chain, stage, started, tried

from understudy.models.failure import Scope
from understudy.models.jobs.execution import Settled
from understudy.models.routing.chain import Chain
from understudy.models.state import JobState, Priority
from understudy.models.store import Store
from understudy.worker.job.run import JobRun
from understudy.worker.limits.grants import Candidate, Grant

pytestmark = pytest.mark.timeout(30)

SOON, LONG = 0.1, 20.0
HEDGED = chain("alpha/m", "beta/m", patience_s=0, hedge_after_s=SOON)
SLOW = {"timeout_s": LONG}


def slow(provider: str = "alpha", **more: Any) -> dict[str, Any]:
    return {"provider": provider, "latency_s": LONG, **more}


def hedged(scene: Stage, of: Chain = HEDGED, **job: Any) -> JobRun:
    return JobRun(started(of, **{"priority": Priority.INTERACTIVE, **job}), of, scene.tools)


@asynccontextmanager
async def racing(redis_url: str, *rules: dict[str, Any], **more: Any) -> AsyncIterator[Stage]:
    async with stage(redis_url, *rules, **{**SLOW, **more}) as scene:
        scene.settings.providers["beta"].__dict__["timeout_s"] = LONG
        yield scene


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happens():
            await asyncio.sleep(0.01)


async def ended(running: asyncio.Task[Settled]) -> Settled:
    """Soon, and without a signal: a cancelled run ends, too."""
    await asyncio.wait([running], timeout=5)
    assert running.done()
    return running.result()


async def in_flight(scene: Stage, provider: str) -> int:
    counts = await scene.redis.hgetall(f"understudy:flight:{provider}:main:m")
    return sum(int(value.split(b"|")[0]) for value in counts.values())


async def test_the_next_step_answers_for_a_slow_one_which_is_cut_short(redis_url: str) -> None:
    async with racing(redis_url, slow()) as scene:
        began = time.monotonic()
        settled = await hedged(scene).run()
        assert time.monotonic() - began < LONG / 2
        assert await in_flight(scene, "alpha") == await in_flight(scene, "beta") == 0
        await until(lambda: scene.mock.stats()["in_flight"] == 0)
    assert tried(settled) == ["alpha cancelled", "beta None"]
    cut, won = settled.attempts
    assert (cut.no, cut.step, won.no, won.step) == (1, 0, 2, 1)
    assert (cut.possibly_billed, cut.cost_usd) == (True, 0.0) and won.cost_usd > 0
    assert cut.message is not None
    assert cut.message.startswith("cut short: beta/m answered first; about $")
    extra = answered(settled)["extra_fields"]
    assert (extra["provider"], extra["fallback_index"]) == ("beta", 1)
    assert [attempt["failure"] for attempt in extra["attempts"]] == ["cancelled", None]


async def test_a_step_that_answers_in_time_is_alone(redis_url: str) -> None:
    async with racing(redis_url) as scene:
        patient = chain("alpha/m", "beta/m", hedge_after_s=5)
        assert tried(await hedged(scene, patient).run()) == ["alpha None"]
        assert scene.calls("beta") == 0


async def test_the_first_answer_counts_also_when_it_is_the_slow_ones(redis_url: str) -> None:
    async with racing(redis_url, {"provider": "alpha", "latency_s": 0.8}, slow("beta")) as scene:
        settled = await hedged(scene).run()
        await until(lambda: scene.mock.stats()["in_flight"] == 0)
        assert await in_flight(scene, "beta") == 0
    assert tried(settled) == ["alpha None", "beta cancelled"]
    assert settled.attempts[1].possibly_billed
    assert answered(settled)["extra_fields"]["fallback_index"] == 0


async def test_a_hedge_that_fails_leaves_the_slow_one_running(redis_url: str) -> None:
    rules = {"provider": "alpha", "latency_s": 1.0}, {"provider": "beta", "fail": "bad_request"}
    async with racing(redis_url, *rules) as scene:
        settled = await hedged(scene).run()
        assert scene.calls("beta") == 1
    assert tried(settled) == ["beta bad_request", "alpha None"]
    assert [call.no for call in settled.attempts] == [1, 2]


async def test_a_slow_one_that_fails_leaves_the_hedge_running(redis_url: str) -> None:
    rules = {"provider": "alpha", "fail": "region", "latency_s": 0.5}, {"provider": "beta", "latency_s": 1.2}
    async with racing(redis_url, *rules) as scene:
        settled = await hedged(scene).run()
    assert tried(settled) == ["alpha region", "beta None"]
    assert settled.state is JobState.SUCCEEDED


async def test_a_hedge_that_failed_for_good_is_not_asked_again(redis_url: str) -> None:
    rules = [{"provider": name, "fail": "region", "latency_s": s} for name, s in (("alpha", 0.5), ("beta", 1.2))]
    async with racing(redis_url, *rules) as scene:
        settled = await hedged(scene).run()
    assert tried(settled) == ["alpha region", "beta region"]
    assert settled.state is JobState.FAILED


async def test_an_answer_that_does_not_count_wins_nothing(redis_url: str) -> None:
    of = chain("alpha/m", "beta/m", hedge_after_s=SOON, accept=["not_truncated"])
    rules = {"provider": "alpha", "latency_s": 1.0}, {"provider": "beta", "answer": {"finish": "length"}}
    async with racing(redis_url, *rules) as scene:
        settled = await hedged(scene, of).run()
    assert tried(settled) == ["beta bad_response", "alpha None"]


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.QUEUED])
async def test_who_stops_a_job_stops_both_calls(redis_url: str, state: JobState) -> None:
    async with racing(redis_url, slow(), slow("beta")) as scene:
        run = hedged(scene)
        running = asyncio.create_task(run.run())
        await until(lambda: scene.mock.stats()["in_flight"] == 2)
        assert sorted(run.calls_in_flight()) == [("alpha:main", "m"), ("beta:main", "m")]
        run.stop(state)
        settled = await ended(running)
        assert run.calls_in_flight() == []
        assert await in_flight(scene, "alpha") == await in_flight(scene, "beta") == 0
        await until(lambda: scene.mock.stats()["in_flight"] == 0)
    assert settled.state is state
    assert sorted(tried(settled)) == ["alpha cancelled", "beta cancelled"]
    assert {call.message for call in settled.attempts} == {"stopped while the call was in flight"}
    assert settled.result is None


@pytest.mark.parametrize(
    ("rules", "state", "calls"),
    [
        ([], JobState.SUCCEEDED, ["alpha None"]),
        ([{"provider": "alpha", "fail": "region"}], JobState.CANCELLED, ["alpha region"]),
    ],
)
@pytest.mark.parametrize("hedge_after_s", [None, LONG])
async def test_who_stops_a_job_in_the_moment_when_its_call_comes_back_gets_what_came(
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    rules: list[dict[str, Any]],
    state: JobState,
    calls: list[str],
    hedge_after_s: float | None,
) -> None:
    async with racing(redis_url, *rules) as scene:
        run, send = hedged(scene, chain("alpha/m", "beta/m", hedge_after_s=hedge_after_s)), scene.tools.client.send

        async def sent(*words: Any) -> Any:
            reply = await send(*words)
            run.stop(JobState.CANCELLED)
            return reply

        monkeypatch.setattr(scene.tools.client, "send", sent)
        settled = await run.run()
    assert (settled.state, tried(settled)) == (state, calls)


async def test_who_stops_a_job_while_the_slow_call_is_cut_short_gets_the_answer_and_leaks_nothing(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with racing(redis_url, slow()) as scene:
        run, release = hedged(scene), scene.tools.limiter.release

        async def released(grant: Grant, *words: Any, **more: Any) -> None:
            if grant.candidate.deployment.provider == "alpha":
                run.stop(JobState.CANCELLED)
                await asyncio.sleep(SOON)
            await release(grant, *words, **more)

        monkeypatch.setattr(scene.tools.limiter, "release", released)
        settled = await run.run()
        assert await in_flight(scene, "alpha") == 0
    assert (settled.state, tried(settled)) == (JobState.SUCCEEDED, ["alpha cancelled", "beta None"])


async def test_a_job_can_be_stopped_when_only_its_hedge_is_left(redis_url: str) -> None:
    async with racing(redis_url, {"provider": "alpha", "fail": "region", "latency_s": 0.5}, slow("beta")) as scene:
        run = hedged(scene)
        running = asyncio.create_task(run.run())
        await until(lambda: [call.provider for call in run.attempts] == ["alpha"])
        await until(lambda: run.calls_in_flight() == [("beta:main", "m")])
        run.stop(JobState.CANCELLED)
        settled = await ended(running)
    assert (settled.state, tried(settled)) == (JobState.CANCELLED, ["alpha region", "beta cancelled"])


async def test_a_step_that_may_not_start_at_once_is_not_asked_as_a_hedge(redis_url: str) -> None:
    async with racing(redis_url, {"provider": "alpha", "latency_s": 0.6}) as scene:
        (beta,) = scene.tools.fleet.usable(HEDGED.steps[1])
        await scene.tools.limiter.cool(beta.deployment, Scope.PROVIDER, 30, "a test")
        settled = await hedged(scene).run()
        assert scene.calls("beta") == 0
    assert tried(settled) == ["alpha None"]


async def test_a_step_whose_start_is_a_moment_ahead_is_not_asked_as_a_hedge(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with racing(redis_url, {"provider": "alpha", "latency_s": 0.6}) as scene:
        reserve = scene.tools.limiter.reserve

        async def a_moment_ahead(candidates: list[Candidate], *words: Any) -> Any:
            granted = await reserve(candidates, *words)
            return replace(granted, wait_s=SOON) if candidates[0].deployment.provider == "beta" else granted

        monkeypatch.setattr(scene.tools.limiter, "reserve", a_moment_ahead)
        settled = await hedged(scene).run()
        assert scene.calls("beta") == await in_flight(scene, "beta") == 0
    assert tried(settled) == ["alpha None"]


async def test_batches_are_hedged_when_they_are_nearly_done(redis_url: str, store: Store) -> None:
    batch_id, ids = await open_batch(store, 4)
    of = HEDGED.model_copy(update={"hedge_last": 0.25})
    async with racing(redis_url, slow(), ledger=store) as scene:
        run = JobRun(replace(started(of), batch_id=batch_id), of, scene.tools)
        running = asyncio.create_task(run.run())
        await until(lambda: scene.mock.stats()["in_flight"] == 1)
        await asyncio.sleep(3 * SOON)
        assert scene.calls("beta") == 0 and len(run.calls_in_flight()) == 1
        await run_all(store, await new_worker(store), ids[:3])
        settled = await ended(running)
    assert tried(settled) == ["alpha cancelled", "beta None"]


async def test_single_jobs_that_are_not_interactive_and_chains_without_it_are_not_hedged(redis_url: str) -> None:
    async with racing(redis_url, {"provider": "alpha", "latency_s": 0.5}) as scene:
        alone = replace(started(HEDGED, priority=Priority.NORMAL), batch_id="")
        assert tried(await JobRun(alone, HEDGED, scene.tools).run()) == ["alpha None"]
        for plain in (chain("alpha/m", "beta/m"), HEDGED.lead_alone()):
            assert tried(await hedged(scene, plain).run()) == ["alpha None"]
