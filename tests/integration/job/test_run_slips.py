"""The outcome of a job whose model makes a slip, or whose provider reports its load inside a 200."""

import time
from collections import Counter

import pytest
from run_help import answering, chain, tried

from understudy.models.state import JobState

ALPHA = chain("alpha/m")
WITH_UNDERSTUDY = chain("alpha/m", "beta/m")
SLIP = {"message": "Failed to generate JSON.", "type": "invalid_request_error", "code": "json_validate_failed"}


async def test_a_slip_of_the_model_is_asked_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slips = [(400, SLIP)]
    async with answering(redis_url, monkeypatch, lambda _: slips.pop() if slips else None) as scene:
        settled = await scene.run(WITH_UNDERSTUDY)
    assert tried(settled) == ["alpha bad_response", "alpha None"]


async def test_a_model_that_slips_again_leaves_the_job_to_the_next_step(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(redis_url, monkeypatch, lambda _: (400, SLIP)) as scene:
        settled = await scene.run(WITH_UNDERSTUDY)
        alone = await scene.run(ALPHA)
    assert tried(settled) == ["alpha bad_response", "alpha bad_response", "beta None"]
    assert (alone.state, alone.result and alone.result.status_code) == (JobState.FAILED, 400)


@pytest.mark.parametrize("body", [{"code": 429, "message": "Try again in 20s."}, b"\n\n\n"])
async def test_load_that_is_told_inside_a_200_is_waited_out(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    refused = [(200, body)]
    async with answering(redis_url, monkeypatch, lambda _: refused[0] if refused else None) as scene:
        settled = await scene.run(ALPHA)
        assert settled.state is JobState.QUEUED
        calls = Counter(tried(settled))
        if isinstance(body, dict):
            assert calls == {"alpha rate_limit": 1}
            assert settled.not_before is not None and 15 < settled.not_before - time.time() < 25
        else:  # one refusal without a hint proves nothing, so it is asked again until there were a few
            assert calls.keys() == {"alpha overloaded"} and calls.total() <= 4
        refused.clear()
        await scene.redis.flushdb()
        assert (await scene.run(ALPHA, progress=settled.progress)).state is JobState.SUCCEEDED
