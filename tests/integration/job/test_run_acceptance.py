"""Answers that a chain does not accept, from real servers: paid for, passed over, and reported without quoting them."""

import json
from typing import Any

import pytest
from run_help import answered, chain, stage, tried

from understudy.models.queue.keys import flight
from understudy.models.schemas.process import NoJudge, SchemaProcess
from understudy.models.state import JobState
from understudy.worker.job.run import NO_JUDGE

pytestmark = pytest.mark.timeout(30)

SCHEMA = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
BODY = {"response_format": {"type": "json_schema", "json_schema": {"name": "legs", "schema": SCHEMA}}}
WRONG = {"heeds_format": False, "text": "SECRET eight"}
WRONG_JSON = {"heeds_format": False, "text": '["SECRET"]'}


def alpha(**answer: Any) -> dict[str, Any]:
    return {"provider": "alpha", "answer": answer}


@pytest.mark.parametrize(
    ("answer", "accept", "calls", "why"),
    [
        (WRONG, "json_schema", 2, "it is not JSON, as response_format requires"),
        (WRONG_JSON, "json_schema", 2, "it violates its schema at $ (type)"),
        ({"heeds_format": False, "text": ""}, "not_empty", 2, "it is empty"),
        ({"finish": "length"}, "not_truncated", 1, "it was cut at the limit of output tokens"),
        ({"finish": "refusal"}, "not_refused", 1, "the model refused"),
    ],
)
async def test_the_next_step_answers_and_what_was_not_accepted_is_paid_for(
    redis_url: str, answer: dict[str, Any], accept: str, calls: int, why: str
) -> None:
    async with stage(redis_url, alpha(**answer), preset="openai") as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", accept=[accept]), body=BODY)
    assert tried(settled) == ["alpha bad_response"] * calls + ["beta None"]
    for call in settled.attempts[:-1]:
        assert (call.message, call.status, call.possibly_billed) == (f"the answer is not accepted: {why}", 200, True)
        assert call.input_tokens > 0 and call.cost_usd > 0
    body = answered(settled)
    assert body["extra_fields"]["fallback_index"] == 1
    assert isinstance(json.loads(body["choices"][0]["message"]["content"])["legs"], int)
    assert "SECRET" not in repr((settled.attempts, body["extra_fields"]))


@pytest.mark.parametrize("answer", [WRONG, {"finish": "length"}, {"finish": "refusal"}])
async def test_without_the_word_such_an_answer_counts(redis_url: str, answer: dict[str, Any]) -> None:
    async with stage(redis_url, alpha(**answer), preset="openai") as scene:
        settled = await scene.run(chain("alpha/m", "beta/m"), body=BODY)
    assert tried(settled) == ["alpha None"]


async def test_when_no_answer_is_acceptable_the_job_fails_with_the_reason_of_each_step(redis_url: str) -> None:
    beta = {"provider": "beta", "answer": {"heeds_format": False, "text": ""}}
    async with stage(redis_url, alpha(**WRONG_JSON), beta, preset="openai") as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", accept=["json_schema", "not_empty"]), body=BODY)
    assert settled.state is JobState.FAILED and settled.result is not None
    assert settled.result.body is None
    error = settled.result.error
    assert error is not None
    assert (error["code"], error["message"]) == (
        "bad_response",
        "alpha/m: the answer is not accepted: it violates its schema at $ (type); "
        "beta/m: the answer is not accepted: it is empty",
    )
    assert "SECRET" not in repr(settled)


async def test_a_chain_that_does_not_go_on_after_bad_answers_ends_with_one(redis_url: str) -> None:
    async with stage(redis_url, alpha(finish="length")) as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", accept=["not_truncated"], fallback_on=["server"]))
        assert scene.calls("beta") == 0
    assert (settled.state, tried(settled)) == (JobState.FAILED, ["alpha bad_response"])


async def test_where_no_process_can_be_started_to_check_an_answer_the_job_is_put_back_and_the_call_is_on_record(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_judge(*_: object) -> None:
        raise NoJudge

    monkeypatch.setattr(SchemaProcess, "ask", no_judge)
    async with stage(redis_url, preset="openai") as scene:
        settled = await scene.run(chain("alpha/m", accept=["json_schema"]), body=BODY)
        in_flight = await scene.redis.hgetall(flight("alpha:main", "m"))
    assert settled.state is JobState.QUEUED
    assert settled.waiting == NO_JUDGE
    assert settled.not_before > 0
    (attempt,) = settled.attempts
    assert attempt.status == 200
    assert attempt.output_tokens
    assert all(value.startswith(b"0|") for value in in_flight.values()), "its place is free again"
