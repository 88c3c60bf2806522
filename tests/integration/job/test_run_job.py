"""One job against fake providers: what each kind of failure costs, and what is written at the end."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from run_help import Stage, answered, chain, stage, started, tried

from understudy.models.failure import FailureClass
from understudy.models.queue import keys
from understudy.models.state import JobState, Priority
from understudy.worker.job.progress import Progress
from understudy.worker.job.run import JobRun
from understudy.worker.limits.grants import Grant
from understudy.worker.mock import Fail, running_mock

pytestmark = pytest.mark.timeout(30)

LEAD_AND_UNDERSTUDY = chain("alpha/m", "beta/m", patience_s=0)


def alpha(fail: Fail, **more: Any) -> dict[str, Any]:
    return {"provider": "alpha", "fail": fail, **more}


async def test_an_answer_says_who_gave_it_and_what_it_cost(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        settled = await scene.run(chain("alpha/m"))
    assert (settled.state, settled.result.status_code if settled.result else None) == (JobState.SUCCEEDED, 200)
    body = answered(settled)
    extra = body["extra_fields"]
    assert body["choices"][0]["message"]["content"]
    assert set(extra) - {"raw_usage", "raw_finish_reason"} == {
        "provider",
        "model_requested",
        "model_used",
        "key",
        "latency_ms",
        "fallback_index",
        "cost_usd",
        "attempts",
    }
    usage = body["usage"]
    cost = (usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 2000) / 1e6
    assert extra["cost_usd"] == pytest.approx(cost) and cost > 0
    assert (extra["provider"], extra["model_requested"], extra["key"]) == ("alpha", "alpha/m", "main")
    assert extra["fallback_index"] == 0
    assert isinstance(extra["latency_ms"], int)
    assert [set(attempt) for attempt in extra["attempts"]] == [
        {"provider", "model", "failure", "status", "latency_ms", "possibly_billed", "message"}
    ]
    assert settled.attempts[0].cost_usd == pytest.approx(cost)


async def test_an_answer_of_a_model_without_a_price_has_no_cost(redis_url: str) -> None:
    async with stage(redis_url, {"fail": Fail.SERVER, "first": 1}, prices={}) as scene:
        settled = await scene.run(chain("alpha/m"))
    assert answered(settled)["extra_fields"]["cost_usd"] is None
    assert settled.result is not None and settled.result.unpriced
    assert [(call.cls, call.cost_usd, call.unpriced) for call in settled.attempts] == [
        (FailureClass.SERVER, 0.0, False),
        (None, 0.0, True),
    ]


@pytest.mark.parametrize(
    ("fail", "calls", "billed"),
    [
        (Fail.SERVER, 3, True),
        (Fail.GATEWAY_TIMEOUT, 3, True),
        (Fail.STALL, 2, True),
        (Fail.DROP, 2, True),
        (Fail.MALFORMED, 2, True),
        (Fail.ERROR_IN_200, 2, True),
        (Fail.OVERLOADED, 1, False),
        (Fail.RATE_LIMIT, 1, False),
        (Fail.RATE_LIMIT_NO_HINT, 1, False),
        (Fail.RATE_LIMIT_PER_DAY, 1, False),
        (Fail.QUOTA, 1, False),
        (Fail.CREDENTIAL, 1, False),
        (Fail.MODEL_MISSING, 1, False),
        (Fail.REGION, 1, False),
        (Fail.TOO_LARGE, 1, False),
    ],
)
async def test_the_understudy_goes_on_after_as_many_calls_as_a_failure_deserves(
    redis_url: str, fail: Fail, calls: int, billed: bool
) -> None:
    async with stage(redis_url, alpha(fail)) as scene:
        settled = await scene.run(LEAD_AND_UNDERSTUDY)
    assert tried(settled) == [f"alpha {fail.cls}"] * calls + ["beta None"]
    assert [call.possibly_billed for call in settled.attempts] == [billed] * calls + [False]
    assert [call.no for call in settled.attempts] == list(range(1, calls + 2))
    extra = answered(settled)["extra_fields"]
    assert (extra["provider"], extra["fallback_index"], extra["model_requested"]) == ("beta", 1, "alpha/m")
    assert [attempt["failure"] for attempt in extra["attempts"]] == [fail.cls] * calls + [None]


async def test_who_cannot_be_reached_was_not_paid(redis_url: str) -> None:
    async with stage(redis_url, base_url="http://127.0.0.1:9/v1") as scene:
        settled = await scene.run(LEAD_AND_UNDERSTUDY)
    assert tried(settled) == ["alpha connect"] * 3 + ["beta None"]
    assert not any(call.possibly_billed for call in settled.attempts)


@pytest.mark.parametrize("fail", [Fail.BAD_REQUEST, Fail.CONTENT_FILTER, Fail.CONTEXT_LENGTH])
async def test_what_the_request_itself_is_at_fault_for_is_not_asked_of_another(redis_url: str, fail: Fail) -> None:
    async with stage(redis_url, alpha(fail)) as scene:
        settled = await scene.run(LEAD_AND_UNDERSTUDY)
        assert scene.calls("beta") == 0
    assert (settled.state, tried(settled)) == (JobState.FAILED, [f"alpha {fail.cls}"])
    assert answered(settled)["extra_fields"]["failure"] == fail.cls


async def test_the_first_steps_error_is_the_jobs_and_every_attempt_is_listed(redis_url: str) -> None:
    rules = alpha(Fail.REGION), {"provider": "beta", "fail": "malformed"}
    async with stage(redis_url, *rules) as scene:
        settled = await scene.run(LEAD_AND_UNDERSTUDY)
    assert settled.state is JobState.FAILED and settled.result is not None
    body = answered(settled)
    assert settled.result.status_code == settled.attempts[0].status == 403
    assert body["error"]["message"]
    assert body["extra_fields"]["failure"] == "region"
    assert [attempt["provider"] for attempt in body["extra_fields"]["attempts"]] == ["alpha", "beta", "beta"]


async def test_a_200_that_was_not_an_answer_does_not_end_as_one(redis_url: str) -> None:
    async with stage(redis_url, alpha(Fail.HTML)) as scene:
        settled = await scene.run(chain("alpha/m"))
    assert settled.state is JobState.FAILED and settled.result is not None
    assert settled.result.status_code is None
    assert settled.result.error is not None and settled.result.error["code"] == "bad_response"


async def test_a_short_cooldown_is_waited_out_in_the_slot(redis_url: str) -> None:
    async with stage(redis_url, alpha(Fail.RATE_LIMIT, first=1, retry_after_s=0.4)) as scene:
        began = time.monotonic()
        settled = await scene.run(chain("alpha/m", "beta/m", patience_s=10))
        took_s = time.monotonic() - began
    assert tried(settled) == ["alpha rate_limit", "alpha None"]
    assert 0.3 < took_s < 2.0


async def test_a_longer_cooldown_frees_the_slot_and_costs_nothing(redis_url: str) -> None:
    async with stage(redis_url, alpha(Fail.RATE_LIMIT, first=1, retry_after_s=5)) as scene:
        began = time.monotonic()
        settled = await scene.run(chain("alpha/m", "beta/m", patience_s=10))
        took_s = time.monotonic() - began
    assert took_s < 1.0
    assert settled.state is JobState.QUEUED
    assert settled.not_before == pytest.approx(time.time() + 5, abs=1.0)
    assert settled.waiting and "alpha/m" in settled.waiting.sentence
    assert Progress.from_dict(settled.progress).retries_left == 3


async def test_a_job_that_comes_back_goes_on_where_it_stopped(redis_url: str) -> None:
    async with stage(redis_url, alpha(Fail.REGION), {"provider": "beta", "fail": "server", "first": 3}) as scene:
        first = await scene.run(LEAD_AND_UNDERSTUDY)
        assert (first.state, tried(first)) == (JobState.QUEUED, ["alpha region"] + ["beta server"] * 3)
        again = await scene.run(LEAD_AND_UNDERSTUDY, progress=first.progress, attempts=len(first.attempts))
        assert scene.calls("alpha") == 1
    assert tried(again) == ["beta None"]
    assert again.attempts[0].no == 5
    extra = answered(again)["extra_fields"]
    assert [attempt["failure"] for attempt in extra["attempts"]] == ["region", "server", "server", "server", None]
    assert "alpha/m" in extra["skipped_steps"]


async def test_a_caller_who_holds_a_connection_learns_at_once_that_every_provider_refuses(redis_url: str) -> None:
    async with stage(redis_url, {"fail": "rate_limit", "retry_after_s": 20}) as scene:
        await scene.run(LEAD_AND_UNDERSTUDY)
        settled = await scene.run(LEAD_AND_UNDERSTUDY, priority=Priority.INTERACTIVE)
    assert (settled.state, tried(settled)) == (JobState.FAILED, [])
    assert settled.result is not None and settled.result.error is not None
    assert settled.result.error["code"] == "rate_limit"


async def test_a_step_that_cannot_say_the_request_is_skipped_with_the_reason(redis_url: str) -> None:
    async with stage(redis_url, kind="gemini") as scene:
        settled = await scene.run(LEAD_AND_UNDERSTUDY, body={"stop": list("abcdef")})
        assert scene.calls("alpha") == 0
    skipped = answered(settled)["extra_fields"]["skipped_steps"]
    assert "stop" in skipped["alpha/m"]


async def test_parameters_that_were_left_out_are_named(redis_url: str) -> None:
    async with stage(redis_url, kind="anthropic") as scene:
        settled = await scene.run(chain("alpha/m"), body={"seed": 7})
    assert answered(settled)["extra_fields"]["dropped_params"] == ["seed"]


async def test_a_refused_answer_is_paid_for(redis_url: str) -> None:
    async with stage(redis_url, {"answer": {"finish": "refusal"}}) as scene:
        settled = await scene.run(chain("alpha/m"))
    assert sum(call.cost_usd for call in settled.attempts) > 0


async def test_no_call_begins_after_the_deadline(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        settled = await scene.run(chain("alpha/m"), expires_at=time.time() - 0.1)
        assert scene.calls("alpha") == 0
    assert (settled.state, settled.result) == (JobState.EXPIRED, None)


async def test_without_redis_no_call_starts_and_the_job_goes_back_unharmed(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        scene.redis.connection_pool.connection_kwargs["path"] = "/nowhere/redis.sock"
        await scene.redis.connection_pool.disconnect()
        settled = await scene.run(chain("alpha/m"))
        assert scene.calls("alpha") == 0
    assert (settled.state, settled.attempts) == (JobState.QUEUED, [])
    assert settled.waiting and "Redis" in settled.waiting.sentence


async def in_flight(scene: Stage) -> int:
    fields = [await scene.redis.hvals(key) for key in await scene.redis.keys("understudy:flight:*")]
    return sum(int(value.split(b"|")[0]) for values in fields for value in values)


async def until_called(scene: Stage, run: JobRun) -> None:
    while not run.calls_in_flight() or not scene.mock.stats()["in_flight"]:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.QUEUED])
async def test_a_stopped_call_is_recorded_as_perhaps_paid_and_leaks_nothing(redis_url: str, state: JobState) -> None:
    async with stage(redis_url, {"latency_s": 5.0}, timeout_s=9) as scene:
        run = JobRun(started(LEAD_AND_UNDERSTUDY), LEAD_AND_UNDERSTUDY, scene.tools)
        task = asyncio.create_task(run.run())
        await until_called(scene, run)
        assert await in_flight(scene) == 1
        run.stop(state)
        settled = await task
        assert (settled.state, tried(settled)) == (state, ["alpha cancelled"])
        assert settled.attempts[0].possibly_billed
        assert await in_flight(scene) == 0
        assert run.calls_in_flight() == []


async def test_an_answer_that_arrived_is_kept_even_if_the_job_is_stopped_and_redis_is_slow(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(redis_url) as scene:
        run = JobRun(started(LEAD_AND_UNDERSTUDY), LEAD_AND_UNDERSTUDY, scene.tools)

        async def hang(grant: Grant, tokens_used: int | None, *, refused: bool = False) -> None:
            run.stop(JobState.QUEUED)
            await asyncio.Event().wait()

        monkeypatch.setattr(scene.tools.limiter, "release", hang)
        async with asyncio.timeout(3):
            settled = await run.run()
    assert (settled.state, tried(settled)) == (JobState.SUCCEEDED, ["alpha None"])


async def test_what_the_limiter_cannot_decide_is_not_asked_in_a_tight_loop(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limiter whose clock is behind ours refuses until a time that has already passed for us."""
    async with stage(redis_url, {"fail": "rate_limit", "retry_after_s": 20}) as scene:
        patient = chain("alpha/m", patience_s=60)
        await scene.run(patient)
        asked = 0
        reserve = scene.tools.limiter.reserve

        async def counted(*words: Any) -> Any:
            nonlocal asked
            asked += 1
            return await reserve(*words)

        monkeypatch.setattr(scene.tools.limiter, "reserve", counted)
        ahead = replace(scene.tools, clock=lambda: time.time() + 60)
        settled = await JobRun(started(patient), patient, ahead).run()
    assert settled.state is JobState.QUEUED
    assert asked < 100


@pytest.mark.parametrize("refused", [False, True])
async def test_the_limit_that_an_answer_or_a_refusal_tells_is_kept_by_the_fleet(redis_url: str, refused: bool) -> None:
    rules = [alpha(Fail.BAD_REQUEST)] if refused else []
    script = {"limits": [{"provider": "alpha", "requests_per_minute": 600}], "rules": rules}
    async with running_mock(script) as limited, stage(redis_url, base_url=f"{limited.base_url('alpha')}/v1") as scene:
        settled = await scene.run(chain("alpha/m"))
        told = await scene.redis.hget(keys.rate("alpha:main", "m"), "advertised_requests")
    assert settled.state is (JobState.FAILED if refused else JobState.SUCCEEDED)
    assert told == b"600"
