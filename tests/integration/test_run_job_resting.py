"""Jobs at a deployment that others find out must rest: real limiter, fake providers."""

import asyncio

from run_help import chain, stage, tried

from models.failure import Scope
from models.state import JobState
from worker.limits import Deployment

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
