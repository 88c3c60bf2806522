"""One job against fake providers: no call ever reaches a provider that breaks a data rule or cannot serve it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ledger_help import new_jobs
from run_help import Stage, answered, chain, planner_of, stage, started, tried

from understudy.models.ids import new_id
from understudy.models.jobs.execution import Settled
from understudy.models.jobs.submission import NewBatch
from understudy.models.queue.tickets import staged_ids
from understudy.models.routing.chain import Chain, Tags
from understudy.models.state import JobState, Priority
from understudy.models.store import Store, open_store
from understudy.producer.status.waiting import blocked_by
from understudy.worker.job.run import JobRun
from understudy.worker.job.step_selection import StepSelection
from understudy.worker.limits.grants import Deployment
from understudy.worker.limits.latency import FORGET_S, Latencies
from understudy.worker.limits.limiter import Scope
from understudy.worker.planner.batch_waits import AGAIN_AFTER_S
from understudy.worker.redis_scripts import ScriptRunner

pytestmark = pytest.mark.timeout(60)

EUROPE: Tags = {"region": ("eu",)}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def tag(scene: Stage, **regions: tuple[str, ...]) -> None:
    """The regions of the providers from now on, as a restarted worker sees them."""
    providers = {
        name: each.model_copy(update={"tags": {"region": regions[name]} if name in regions else {}})
        for name, each in scene.settings.providers.items()
    }
    changed = scene.settings.model_copy(update={"providers": providers})
    scene.tools = replace(scene.tools, choice=StepSelection(changed, scene.tools.pricing, scene.tools.choice.latencies))


@asynccontextmanager
async def us_and_eu(redis_url: str, *rules: dict[str, Any], **more: Any) -> AsyncIterator[Stage]:
    """Alpha is in the US, beta in the EU."""
    async with stage(redis_url, *rules, **more) as scene:
        tag(scene, alpha=("us",), beta=("eu",))
        yield scene


def skipped(settled: Settled) -> dict[str, str]:
    found: dict[str, str] = answered(settled)["extra_fields"]["skipped_steps"]
    return found


async def test_a_step_that_breaks_a_rule_is_skipped_and_the_result_says_so(redis_url: str) -> None:
    async with us_and_eu(redis_url) as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", require=EUROPE))
        assert tried(settled) == ["beta None"]
        assert scene.calls("alpha") == 0
        assert skipped(settled) == {
            "alpha/m": "'alpha/m' breaks the rule require region = eu: provider 'alpha' has region = us"
        }
        extra = answered(settled)["extra_fields"]
        assert (extra["model_requested"], extra["fallback_index"]) == ("beta/m", 0), "it was never to be asked"


@pytest.mark.parametrize("fail", ["server", "rate_limit", "overloaded", "credential", "model_missing", "region"])
@pytest.mark.parametrize("rule", [{"require": EUROPE}, {"forbid": {"region": ("us",)}}])
async def test_no_failure_of_the_allowed_step_leads_to_one_that_breaks_a_rule(
    redis_url: str, fail: str, rule: dict[str, Tags]
) -> None:
    """Fallback, retries, probes of credentials and rounds: whatever led to the step."""
    async with us_and_eu(redis_url, {"provider": "beta", "fail": fail, "retry_after_s": 0}) as scene:
        for spill in (False, True):
            of = chain("beta/m", "alpha/m", patience_s=0, spill=spill, **rule)
            progress = None
            for _ in range(3):
                settled = await scene.run(of, progress=progress)
                progress = settled.progress
                if settled.state is not JobState.QUEUED:
                    break
            assert "alpha" not in " ".join(tried(settled))
        assert scene.calls("beta") >= 1
        assert scene.calls("alpha") == 0


async def test_hedging_does_not_ask_a_step_that_breaks_a_rule(redis_url: str) -> None:
    async with us_and_eu(redis_url, {"provider": "beta", "latency_s": 0.3}) as scene:
        of = chain("beta/m", "alpha/m", hedge_after_s=0.05, require=EUROPE)
        settled = await JobRun(started(of, priority=Priority.INTERACTIVE), of, scene.tools).run()
        assert tried(settled) == ["beta None"]
        assert scene.calls("alpha") == 0


async def test_a_share_of_fallbacks_counts_from_the_first_step_that_may_serve(redis_url: str) -> None:
    async with us_and_eu(redis_url) as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", max_fallback_share=0.0, require=EUROPE))
        assert tried(settled) == ["beta None"]


async def test_a_chain_that_spills_does_not_spill_over_a_rule(redis_url: str) -> None:
    async with us_and_eu(redis_url) as scene:
        await scene.tools.limiter.cool(Deployment("beta", "m", "main", "beta:main"), Scope.MODEL, 60, "rate_limit")
        settled = await scene.run(chain("beta/m", "alpha/m", patience_s=0, spill=True, require=EUROPE))
        assert settled.state is JobState.QUEUED
        assert settled.not_before > time.time() + 30
        assert scene.calls("alpha") == 0


async def test_after_a_configuration_change_jobs_wait_with_the_reason_and_continue_when_it_is_fixed(
    redis_url: str,
) -> None:
    async with us_and_eu(redis_url) as scene:
        of = chain("alpha/m", "beta/m", require=EUROPE)
        tag(scene, alpha=("us",), beta=("eu", "us"))
        waiting = await scene.run(of)
        assert (waiting.state, waiting.attempts) == (JobState.QUEUED, [])
        assert waiting.waiting and "breaks the rule require region = eu" in waiting.waiting.sentence
        assert scene.calls("alpha") + scene.calls("beta") == 0
        tag(scene, alpha=("eu",))
        settled = await scene.run(of, progress=waiting.progress)
        assert tried(settled) == ["alpha None"]


async def test_an_interactive_job_that_no_step_may_serve_fails_with_the_rule(redis_url: str) -> None:
    async with us_and_eu(redis_url) as scene:
        settled = await scene.run(chain("alpha/m", require=EUROPE), priority=Priority.INTERACTIVE)
        assert settled.state is JobState.FAILED
        assert settled.result is not None and settled.result.error is not None
        assert settled.result.error["code"] == "region"
        assert "breaks the rule require region = eu" in settled.result.error["message"]
        assert scene.calls("alpha") == 0


async def test_a_provider_that_is_no_longer_configured_breaks_every_rule(redis_url: str) -> None:
    async with us_and_eu(redis_url) as scene:
        settled = await scene.run(chain("gone/m", "beta/m", forbid={"region": ("us",)}))
        assert "'gone' has no tag region" in skipped(settled)["gone/m"]


async def test_conditional_steps_take_the_requests_that_they_name(redis_url: str) -> None:
    document = chain("alpha/m", "beta/m").model_dump()
    document["steps"][0]["when"] = {"max_input_tokens": 100}
    of = Chain.model_validate(document)
    async with stage(redis_url) as scene:
        assert tried(await scene.run(of, tokens=100)) == ["alpha None"]
        long = await scene.run(of, tokens=101)
        assert tried(long) == ["beta None"]
        assert "is for requests of at most 100 input tokens" in skipped(long)["alpha/m"]


async def test_a_request_that_fits_no_step_fails_with_all_reasons_and_no_call(redis_url: str) -> None:
    features = {"m": {"tools": False}, "small": {"context_window": 50}}
    async with stage(redis_url, features=features) as scene:
        settled = await scene.run(chain("alpha/m", "alpha/small"), tokens=400, body={"tools": TOOLS})
        assert settled.state is JobState.FAILED
        assert settled.result is not None and settled.result.error is not None
        assert settled.result.error["code"] == "bad_request"
        assert settled.result.error["message"] == (
            "no step of the chain can serve this request: 'alpha/m' cannot use tools; 'alpha/small' has a context "
            "window of 50 tokens; the request has about 400 tokens"
        )
        assert scene.calls("alpha") == 0


async def test_the_cheapest_step_is_asked_first_and_the_order_is_kept_when_the_job_is_put_back(redis_url: str) -> None:
    prices = {"m": {"input": 5000.0, "output": 9000.0}}
    async with stage(redis_url, {"provider": "beta", "fail": "server"}, prices=prices) as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", order="cheapest", patience_s=0))
        assert tried(settled) == ["beta server", "beta server", "beta server", "alpha None"]
        extra = answered(settled)["extra_fields"]
        assert (extra["model_requested"], extra["fallback_index"]) == ("beta/m", 1)
        await scene.tools.limiter.cool(Deployment("beta", "m", "main", "beta:main"), Scope.MODEL, 20, "rate_limit")
        held = await scene.run(chain("alpha/m", "beta/m", order="cheapest", patience_s=60))
        assert held.state is JobState.QUEUED
        assert held.progress is not None and held.progress["order"] == (1, 0)


async def test_latencies_are_shared_by_the_fleet_and_forgotten(redis_url: str) -> None:
    rules = {"provider": "alpha", "latency_s": 0.25}, {"provider": "beta", "latency_s": 0.0}
    async with stage(redis_url, *rules, timeout_s=5) as scene:
        of, here = chain("alpha/m", "beta/m", order="fastest"), scene.tools.choice.latencies
        assert [tried(await scene.run(of)) for _ in range(3)] == [["alpha None"], ["beta None"], ["beta None"]]
        await here.share()
        scripts = ScriptRunner(scene.redis)
        elsewhere = Latencies(scripts)
        assert elsewhere.of("alpha/m") is None
        await elsewhere.share()
        assert (elsewhere.of("alpha/m") or 0) > (elsewhere.of("beta/m") or 1_000)
        assert await scene.redis.pttl("understudy:latency") > 0
        scripts.now_ms = (time.time() + FORGET_S + 5) * 1000
        elsewhere.answered("beta", "m", 40.0)
        await elsewhere.share()
        assert (elsewhere.of("alpha/m"), elsewhere.of("beta/m")) == (None, 40.0)


async def test_what_a_redis_that_is_away_was_not_told_it_is_told_later(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        away = scene.tools.choice.latencies
        away.answered("alpha", "m", 120.0)
        path = scene.redis.connection_pool.connection_kwargs["path"]
        scene.redis.connection_pool.connection_kwargs["path"] = "/nowhere/redis.sock"
        await scene.redis.connection_pool.disconnect()
        await away.share()
        scene.redis.connection_pool.connection_kwargs["path"] = path
        scene.redis.connection_pool.reset()
        await away.share()
        other = Latencies(ScriptRunner(scene.redis))
        await other.share()
        assert other.of("alpha/m") == 120.0


@dataclass
class Ahead:
    by_s: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.by_s


async def waiting_batch(store: Store, of: Chain) -> str:
    batch_id, expires_at = new_id("batch"), await store.now() + 3600
    await store.intake.create_batch(NewBatch(batch_id, expires_at=expires_at))
    await store.intake.add_jobs(batch_id, await new_jobs(store, 3, of))
    await store.intake.open_batch(batch_id, 3)
    return batch_id


async def test_the_planner_stages_nothing_of_a_batch_that_no_step_may_serve_and_says_why(
    redis_url: str, tmp_path: Path
) -> None:
    async with us_and_eu(redis_url) as scene, open_store(None, tmp_path) as store:
        barred = await waiting_batch(store, chain("alpha/m", require=EUROPE))
        other = await waiting_batch(store, chain("alpha/m"))
        clock = Ahead()
        planner = planner_of(scene, store, monotonic=clock)
        assert await planner.pass_once() == 3
        clock.by_s = AGAIN_AFTER_S
        assert await planner.pass_once() == 0
        assert sum(map(len, (await staged_ids(scene.redis)).values())) == 3
        seen = await store.batches.view(barred)
        assert seen is not None and seen.waiting is not None
        assert seen.waiting.hold == "rules"
        assert "breaks the rule require region = eu" in seen.waiting.reason
        assert await blocked_by(store, scene.settings, [barred]) == seen.waiting.reason
        assert await blocked_by(store, scene.settings, [barred, other]) is None
        neighbour = await store.batches.view(other)
        assert neighbour is not None and neighbour.waiting is None


async def test_the_planner_looks_at_the_room_of_the_steps_that_are_allowed(redis_url: str, tmp_path: Path) -> None:
    async with us_and_eu(redis_url) as scene, open_store(None, tmp_path) as store:
        await waiting_batch(store, chain("alpha/m", "beta/m", require=EUROPE))
        await scene.tools.limiter.cool(Deployment("beta", "m", "main", "beta:main"), Scope.MODEL, 20, "rate_limit")
        planner = planner_of(scene, store)
        assert await planner.pass_once() == 0


async def test_concurrent_jobs_under_many_rules_reach_only_who_keeps_them(redis_url: str) -> None:
    """Every way at once: two rules, three orders, a faulty step, jobs of every priority."""
    rules = {"provider": "beta", "fail": "server", "probability": 0.5}, {"provider": "alpha", "fail": "server"}
    async with us_and_eu(redis_url, *rules) as scene:
        runs = [
            scene.run(
                chain("alpha/m", "beta/m", order=order, spill=spill, patience_s=0, require=EUROPE), priority=priority
            )
            for order in ("chain", "cheapest", "fastest")
            for spill in (False, True)
            for priority in Priority
            for _ in range(4)
        ]
        settled = await asyncio.gather(*runs)
        assert scene.calls("alpha") == 0
        assert scene.calls("beta") >= len(runs)
        assert any(each.state is JobState.SUCCEEDED for each in settled)
