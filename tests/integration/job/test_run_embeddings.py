"""One request for embeddings against fake providers, from the claim to what is written at the end."""

import json
from typing import Any

import pytest
from run_help import PROMPT, Stage, answered, chain, stage, started, tried

from understudy.models.jobs.execution import Settled
from understudy.models.routing.chain import EMBEDDINGS
from understudy.models.state import JobState
from understudy.worker.job.run import JobRun
from understudy.worker.mock import Fail
from understudy.worker.mock.bodies import vector

pytestmark = pytest.mark.timeout(30)

BODY = {"input": ["a spider", "a snake"]}
VECTORS = [vector(text, 8) for text in BODY["input"]]
KINDS = ("openai", "gemini")


async def embed(scene: Stage, *steps: str, body: dict[str, Any] = BODY) -> Settled:
    of = chain(*steps, patience_s=0, endpoint=EMBEDDINGS)
    job = started(of)
    job.body = json.dumps(body)
    return await JobRun(job, of, scene.tools).run()


def vectors(settled: Settled) -> list[list[float]]:
    return [each["embedding"] for each in answered(settled)["data"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_has_the_vectors_and_says_who_gave_them_and_what_they_cost(redis_url: str, kind: str) -> None:
    async with stage(redis_url, kind=kind) as scene:
        settled = await embed(scene, "alpha/m")
        assert scene.mock.stats()["providers"]["alpha"]["output_tokens"] == 0
    body = answered(settled)
    assert settled.state is JobState.SUCCEEDED
    assert body["object"] == "list" and [each["index"] for each in body["data"]] == [0, 1]
    assert vectors(settled) == [pytest.approx(each) for each in VECTORS]
    extra = body["extra_fields"]
    assert (extra["provider"], extra["model_requested"], extra["fallback_index"]) == ("alpha", "alpha/m", 0)
    assert extra["cost_usd"] == pytest.approx(body["usage"]["prompt_tokens"] * 1000 / 1e6) and extra["cost_usd"] > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fail", [Fail.SERVER, Fail.RATE_LIMIT, Fail.QUOTA, Fail.TRUNCATED, Fail.MODEL_MISSING])
async def test_the_same_model_elsewhere_goes_on_with_the_same_vectors(redis_url: str, kind: str, fail: Fail) -> None:
    async with stage(redis_url, {"provider": "alpha", "fail": fail}, kind=kind) as scene:
        settled = await embed(scene, "alpha/m", "beta/m")
    assert tried(settled)[0] == f"alpha {fail.cls}" and tried(settled)[-1] == "beta None"
    assert vectors(settled) == [pytest.approx(each) for each in VECTORS]
    assert answered(settled)["extra_fields"]["provider"] == "beta"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bad_request_fails_as_it_does_for_completions(redis_url: str, kind: str) -> None:
    async with stage(redis_url, {"provider": "alpha", "fail": "bad_request"}, kind=kind) as scene:
        settled = await embed(scene, "alpha/m", "beta/m")
        assert scene.calls("beta") == 0
    assert settled.state is JobState.FAILED and settled.result is not None
    assert settled.result.status_code == 400


@pytest.mark.parametrize("kind", ["anthropic", "bedrock"])
async def test_a_step_that_has_no_embeddings_is_passed_over_with_the_reason(redis_url: str, kind: str) -> None:
    async with stage(redis_url, kind=kind) as scene:
        settled = await embed(scene, "alpha/m", "beta/m")
        assert scene.calls("alpha") == 0
    assert tried(settled) == ["beta None"]
    assert "no embeddings" in answered(settled)["extra_fields"]["skipped_steps"]["alpha/m"]


@pytest.mark.parametrize("kind", KINDS)
async def test_dimensions_and_base64_reach_every_protocol(redis_url: str, kind: str) -> None:
    body = {"input": PROMPT, "dimensions": 3, "encoding_format": "base64"}
    async with stage(redis_url, kind=kind) as scene:
        settled = await embed(scene, "alpha/m", body=body)
    assert [len(each) for each in vectors(settled)] == [16], "12 bytes, as base64"


async def test_a_text_too_long_to_embed_is_not_asked_of_the_same_model_elsewhere(redis_url: str) -> None:
    async with stage(redis_url, {"provider": "alpha", "fail": "context_length"}) as scene:
        settled = await embed(scene, "alpha/m", "beta/m")
        assert scene.calls("beta") == 0
    assert settled.state is JobState.FAILED
