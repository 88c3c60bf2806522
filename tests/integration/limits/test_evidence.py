"""One odd answer does nothing to other jobs; what is really wrong is still disabled and reported."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ledger_help import sqlite_ledger
from run_help import Stage, answering, chain, tried

from understudy.models.disabled import DisabledCredential
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import Settled
from understudy.models.state import JobState
from understudy.worker.limits import disabled_credentials as asides
from understudy.worker.limits.latency import FORGET_S

pytestmark = pytest.mark.timeout(60)

ALPHA = chain("alpha/m")
WITH_UNDERSTUDY = chain("alpha/m", "beta/m", patience_s=0)
MODEL_NOT_FOUND = {"message": "The model m does not exist.", "type": "invalid_request_error", "code": "model_not_found"}
WRONG_KEY = {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}
NO_MONEY = {"message": "Insufficient balance.", "code": "insufficient_quota"}

ODD = {
    "missing, in a code": (404, MODEL_NOT_FOUND),
    "missing, an unknown code": (404, {"message": "No such thing.", "code": "thing_unknown"}),
    "missing, without a word": (404, None),
    "missing, as a wrong request": (400, {"message": "model not found", "type": "invalid_request_error"}),
    "a wrong key, in a code": (401, WRONG_KEY),
    "a wrong key, without a word": (401, None),
    "forbidden, without a word": (403, None),
    "forbidden, for an image": (403, {"message": "You do not have permission to use the image at this URL."}),
    "no money, in a code": (429, NO_MONEY),
    "no money, without a word": (402, None),
}
"""Status and error object of one answer among good ones."""


async def run_all(scene: Stage, prompts: list[str], of: Any = ALPHA) -> list[Settled]:
    return [await scene.run(of, prompt=prompt, job_id=f"job_{prompt}") for prompt in prompts]


async def in_ledger(scene: Stage, folder: Path) -> list[DisabledCredential]:
    async with sqlite_ledger(folder / "ledger") as store:
        await scene.tools.fleet.share(store)
        return await store.credentials.listed()


def states(outcomes: list[Settled]) -> list[JobState]:
    return [settled.state for settled in outcomes]


@pytest.mark.parametrize("odd", ODD)
async def test_one_odd_answer_among_good_ones_is_the_affair_of_its_job(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    async with answering(redis_url, monkeypatch, lambda prompt: ODD[odd] if prompt == "odd" else None) as scene:
        outcomes = await run_all(scene, ["1", "2", "odd", "3", "4"])
        understudy = await scene.run(WITH_UNDERSTUDY, prompt="odd", job_id="job_odd_2")
        last = await scene.run(ALPHA, prompt="5", job_id="job_5")
        rows = await in_ledger(scene, tmp_path)
    assert rows == []
    assert [states(outcomes)[index] for index in (0, 1, 3, 4)] == [JobState.SUCCEEDED] * 4
    assert outcomes[2].state is not JobState.SUCCEEDED
    assert (tried(understudy)[-1], last.state) == ("beta None", JobState.SUCCEEDED)


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_answer_that_comes_first_of_all_harms_no_other_job(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    asked = asyncio.Event()

    async with answering(redis_url, monkeypatch, lambda prompt: ODD[odd] if prompt == "odd" else None) as scene:
        send = scene.tools.client.send

        async def slowly(*call: Any) -> Any:
            reply = await send(*call)
            if reply[0] == 200:
                asked.set()
                await odd_is_back.wait()
            return reply

        odd_is_back = asyncio.Event()
        monkeypatch.setattr(scene.tools.client, "send", slowly)
        under_way = asyncio.create_task(scene.run(ALPHA, prompt="1", job_id="job_1"))
        await asked.wait()
        await scene.run(ALPHA, prompt="odd", job_id="job_odd")
        odd_is_back.set()
        assert (await under_way).state is JobState.SUCCEEDED
        assert (await scene.run(ALPHA, prompt="2", job_id="job_2")).state is JobState.SUCCEEDED
        assert await in_ledger(scene, tmp_path) == []


@pytest.mark.parametrize(
    ("odd", "failure"), [("a wrong key, in a code", "credential"), ("no money, in a code", "quota")]
)
async def test_an_odd_answer_that_can_only_mean_the_key_leaves_its_job_to_try_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, odd: str, failure: str
) -> None:
    async with answering(redis_url, monkeypatch, lambda prompt: ODD[odd] if prompt == "odd" else None) as scene:
        await run_all(scene, ["1"])
        settled = await scene.run(ALPHA, prompt="odd", job_id="job_odd")
    assert settled.state is JobState.QUEUED
    assert settled.waiting is not None and failure in settled.waiting.sentence


@pytest.mark.parametrize(
    ("odd", "failure"),
    [
        ("a wrong key, in a code", FailureClass.CREDENTIAL),
        ("a wrong key, without a word", FailureClass.CREDENTIAL),
        ("no money, in a code", FailureClass.QUOTA),
        ("no money, without a word", FailureClass.QUOTA),
    ],
)
async def test_a_key_that_never_worked_is_set_aside_by_its_first_refusal(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str, failure: FailureClass
) -> None:
    async with answering(redis_url, monkeypatch, lambda _: ODD[odd]) as scene:
        first, second = await run_all(scene, ["1", "2"])
        (row,) = await in_ledger(scene, tmp_path)
    assert states([first, second]) == [JobState.QUEUED] * 2
    assert (len(first.attempts), len(second.attempts)) == (1, 0)
    assert (row.failure, row.is_weak) == (failure, False)
    assert second.waiting is not None and f"{failure} at alpha (key main)" in second.waiting.sentence


@pytest.mark.parametrize("odd", ["a wrong key, in a code", "no money, in a code"])
async def test_a_key_that_stops_working_is_set_aside_when_a_second_job_confirms_it_and_tried_again_soon(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    revoked = False
    async with answering(redis_url, monkeypatch, lambda _: ODD[odd] if revoked else None) as scene:
        await run_all(scene, ["1", "2"])
        revoked = True
        refused = await run_all(scene, ["3", "4", "5"])
        (row,) = await in_ledger(scene, tmp_path)
        assert states(refused) == [JobState.QUEUED] * 3
        assert refused[2].attempts == []
        assert row.is_weak and row.probe_at is not None and row.probe_at - row.since < 10
        revoked = False
        while (settled := await scene.run(ALPHA, prompt="6", job_id="job_6")).state is JobState.QUEUED:
            await asyncio.sleep(0.05)
        assert settled.state is JobState.SUCCEEDED
        assert await in_ledger(scene, tmp_path) == []


async def test_a_key_that_is_only_ever_forbidden_is_set_aside_when_several_jobs_say_so(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(redis_url, monkeypatch, lambda _: (403, None)) as scene:
        outcomes = await asyncio.gather(*(scene.run(ALPHA, prompt=each, job_id=f"job_{each}") for each in "12345"))
        (row,) = await in_ledger(scene, tmp_path)
    assert states(list(outcomes)) == [JobState.QUEUED] * 5
    assert row.failure is FailureClass.CREDENTIAL and row.is_weak


@pytest.mark.parametrize(
    "words", ["your api key is invalid", "monthly budget exceeded", "rate limit reached, please try again in 21h"]
)
async def test_a_caller_whose_words_the_provider_repeats_takes_it_away_from_no_one(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    repeated = {"message": f"Unknown parameter: '{words}'.", "type": "invalid_request_error", "param": words}
    for refusal in ((400, repeated), (400, {"message": f"{words} is not allowed here"})):
        async with answering(redis_url, monkeypatch, {words: refusal}.get) as scene:
            hostile = [
                await scene.run(ALPHA, prompt=words, body={words: 1}, job_id=f"job_{number}") for number in range(4)
            ]
            innocent = await scene.run(ALPHA, prompt="hello", job_id="job_innocent")
            assert await in_ledger(scene, tmp_path) == []
        assert states(hostile) == [JobState.FAILED] * 4
        assert {settled.result.status_code for settled in hostile if settled.result} == {400}
        assert innocent.state is JobState.SUCCEEDED


async def test_one_job_that_is_refused_again_and_again_sets_nothing_aside(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = ODD["forbidden, for an image"]
    async with answering(redis_url, monkeypatch, lambda prompt: forbidden if prompt == "odd" else None) as scene:
        await run_all(scene, ["1"])
        outcomes = await run_all(scene, ["odd"] * 5)
        assert await in_ledger(scene, tmp_path) == []
    assert states(outcomes) == [JobState.FAILED] * 5
    assert {settled.result.status_code for settled in outcomes if settled.result} == {403}


async def test_a_deployment_that_vanishes_is_passed_over_and_asked_again_soon(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = False
    async with answering(redis_url, monkeypatch, lambda _: (404, None) if gone else None) as scene:
        await run_all(scene, ["1"])
        gone = True
        outcomes = await run_all(scene, ["2", "3", "4", "5"], WITH_UNDERSTUDY)
        (row,) = await in_ledger(scene, tmp_path)
        assert [tried(settled)[-1] for settled in outcomes] == ["beta None"] * 4
        assert tried(outcomes[-1]) == ["beta None"]
        assert (row.model, row.failure, row.is_weak) == ("m", FailureClass.MODEL_MISSING, True)
        gone = False
        while tried(await scene.run(WITH_UNDERSTUDY, prompt="6", job_id="job_6")) != ["alpha None"]:
            await asyncio.sleep(0.05)
        assert await in_ledger(scene, tmp_path) == []


async def test_a_step_that_may_be_missing_is_waited_for_when_no_other_can_serve_the_job(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = False
    async with answering(redis_url, monkeypatch, lambda _: (404, None) if gone else None) as scene:
        await run_all(scene, ["1"])
        gone = True
        await run_all(scene, ["2", "3", "4"])
        busy = {"fail": "rate_limit", "provider": "beta", "retry_after_s": 60}
        scene.mock.configure(type(scene.mock._config).model_validate({"rules": [busy]}))
        waiting = await scene.run(WITH_UNDERSTUDY, prompt="5", job_id="job_5")
        gone = False
        alone = await scene.run(ALPHA, prompt="6", job_id="job_6")
    assert waiting.state is JobState.QUEUED
    assert alone.state is JobState.SUCCEEDED


async def test_what_other_workers_were_answered_a_moment_ago_speaks_for_a_key(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(redis_url, monkeypatch, lambda _: ODD["a wrong key, in a code"]) as scene:
        scene.tools.choice.latencies.answered("alpha", "m", 50.0)
        await scene.run(ALPHA, prompt="1", job_id="job_1")
        assert await in_ledger(scene, tmp_path) == []


async def test_an_answer_of_long_ago_does_not_speak_for_a_key(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked = False
    async with answering(redis_url, monkeypatch, lambda _: ODD["a wrong key, in a code"] if revoked else None) as scene:
        await run_all(scene, ["1"])
        revoked = True
        scene.tools.choice.latencies._known.clear()
        fleet = scene.tools.fleet
        now = fleet._clock()
        monkeypatch.setattr(fleet._asides, "_clock", lambda: now + FORGET_S + 1)
        await scene.run(ALPHA, prompt="2", job_id="job_2")
        (row,) = await in_ledger(scene, tmp_path)
    assert not row.is_weak


async def test_models_that_callers_invent_are_remembered_up_to_a_bound(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asides, "MOST_MISSING", 2)
    monkeypatch.setattr(asides, "MOST_STANDINGS", 3)
    async with answering(redis_url, monkeypatch, lambda _: ODD["missing, in a code"]) as scene:
        for number in range(5):
            settled = await scene.run(chain(f"alpha/invented-{number}"), job_id=f"job_{number}")
            assert settled.result is not None and settled.result.status_code == 404
        assert [row.model for row in await in_ledger(scene, tmp_path)] == ["invented-0", "invented-1"]
        assert len(scene.tools.fleet._asides._standings) <= 4


async def test_a_missing_model_that_is_no_longer_asked_for_is_forgotten(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(redis_url, monkeypatch, lambda _: ODD["missing, in a code"]) as scene:
        await scene.run(ALPHA, job_id="job_1")
        assert len(await in_ledger(scene, tmp_path)) == 1
        monkeypatch.setattr(asides, "FORGOTTEN_AFTER_S", -10_000.0)
        await in_ledger(scene, tmp_path)
        assert await in_ledger(scene, tmp_path) == []
