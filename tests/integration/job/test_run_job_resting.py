"""Jobs of a deployment that, as other jobs discover, must rest: real limiter, fake providers."""

import asyncio
import time

import pytest
from run_help import Stage, chain, stage, tried

from understudy.models.failure import Scope
from understudy.models.limits.state import end_of_day
from understudy.models.state import JobState
from understudy.worker.limits.breaker import BREAK_AFTER
from understudy.worker.limits.grants import Candidate, Deployment
from understudy.worker.mock.config import MockConfig

ALPHA = Deployment("alpha", "m", "main", "alpha:main")
HASTY = chain("alpha/m", "beta/m", patience_s=0)


async def test_a_call_that_waits_for_its_start_is_not_made_when_its_deployment_is_cooled(redis_url: str) -> None:
    async with stage(redis_url, requests_per_minute=60) as scene:
        assert tried(await scene.run(HASTY)) == ["alpha None"]
        waiting = asyncio.create_task(scene.run(HASTY))
        await asyncio.sleep(0.1)
        await scene.tools.limiter.cool(ALPHA, Scope.ACCOUNT, 30.0, "refused")
        settled = await waiting
        assert scene.calls("alpha") == 1
    assert (settled.state, tried(settled)) == (JobState.SUCCEEDED, ["beta None"])


async def test_a_day_that_is_used_up_goes_on_at_the_next_step_and_keeps_those_without_one_until_midnight(
    redis_url: str,
) -> None:
    limits = [{"model": "m", "requests_per_day": 1, "tokens_per_day": 100_000}]
    async with stage(redis_url, limits=limits) as scene:
        scene.tools.limiter.scripts.now_ms = time.time() * 1000
        midnight = end_of_day(scene.tools.limiter.scripts.now_ms / 1000)
        assert tried(await scene.run(HASTY)) == ["alpha None"]
        settled = await scene.run(HASTY)
        assert (settled.state, tried(settled)) == (JobState.SUCCEEDED, ["beta None"])
        held = await scene.run(chain("alpha/m", patience_s=0))
        assert (held.state, held.attempts) == (JobState.QUEUED, [])
        assert held.not_before == pytest.approx(midnight, abs=5.0)
        assert (
            held.waiting is not None
            and held.waiting.sentence == "the daily limit is used up at alpha/m (account alpha:main)"
        )
        assert scene.calls("alpha") == 1


async def test_a_deployment_that_was_down_is_back_when_it_says_what_is_wrong_with_a_request(redis_url: str) -> None:
    rules = {"provider": "alpha", "message": "wrong", "fail": "bad_request"}, {"provider": "alpha", "fail": "drop"}
    async with stage(redis_url, *rules) as scene:
        alone = chain("alpha/m")
        for number in range(BREAK_AFTER):
            await scene.run(alone, job_id=f"job_{number}")
        scene.mock.configure(MockConfig.model_validate({"rules": rules[:1]}))
        await _until_it_may_be_probed(scene)
        assert (await scene.tools.limiter.outlook([Candidate(ALPHA)], 1.0))[0].refusing_for_s is not None
        assert tried(await scene.run(alone, prompt="wrong")) == ["alpha bad_request"]
        seen = await scene.tools.limiter.outlook([Candidate(ALPHA)], 1.0)
        assert seen[0].refusing_for_s is None, "not only probes may start any more"


async def _until_it_may_be_probed(scene: Stage) -> None:
    async with asyncio.timeout(20):
        while (await scene.tools.limiter.outlook([Candidate(ALPHA)], 0.0))[0].cooled_for_s is not None:
            await asyncio.sleep(0.05)
