"""Several keys, disabled keys that return, and what must never be shown of keys and prompts."""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from ledger_help import sqlite_ledger
from redis.asyncio import Redis
from run_help import answered, chain, stage, tried

from understudy.models import disabled as setaside
from understudy.models.config.secrets import fingerprint
from understudy.models.failure import FailureClass
from understudy.models.jobs.execution import Settled
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.worker.mock import Fail

pytestmark = pytest.mark.timeout(30)

ALPHA = chain("alpha/m")
NOW_SECRET = fingerprint("sk-alpha-main-1234")
WITH_UNDERSTUDY = chain("alpha/m", "beta/m", patience_s=0)


def ledger(folder: Path) -> AbstractAsyncContextManager[Store]:
    return sqlite_ledger(folder / "ledger")


def only(key: str, fail: Fail, **more: Any) -> dict[str, Any]:
    return {"provider": "alpha", "key": f"sk-alpha-{key}-1234", "fail": fail, **more}


def used(outcomes: Sequence[Settled]) -> list[str]:
    return [answered(settled)["extra_fields"]["key"] for settled in outcomes]


async def test_while_one_key_is_refused_for_its_rate_the_other_goes_on_at_once(redis_url: str) -> None:
    async with stage(redis_url, only("one", Fail.RATE_LIMIT, retry_after_s=30), keys=["one", "two"]) as scene:
        async with asyncio.timeout(5):
            outcomes = [await scene.run(ALPHA) for _ in range(6)]
    assert used(outcomes) == ["two"] * 6
    assert sum(tried(settled).count("alpha rate_limit") for settled in outcomes) == 1


async def test_a_dead_key_is_set_aside_for_all_and_the_other_goes_on(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url, only("one", Fail.CREDENTIAL), keys=["one", "two"]) as scene, ledger(tmp_path) as store:
        outcomes = [await scene.run(ALPHA) for _ in range(8)]
        assert used(outcomes) == ["two"] * 8
        assert sum(len(settled.attempts) for settled in outcomes) == 9
        await scene.tools.fleet.share(store)
        row = (await store.credentials.listed())[0]
    assert (row.provider, row.key, row.failure) == ("alpha", "one", FailureClass.CREDENTIAL)


async def test_all_keys_blocked_keeps_the_job_queued_until_a_person_enables_them(
    redis_url: str, tmp_path: Path
) -> None:
    async with stage(redis_url, {"fail": "credential", "first": 1}) as scene, ledger(tmp_path) as store:
        settled = await scene.run(ALPHA)
        assert settled.state is JobState.QUEUED
        assert settled.waiting and "credential at alpha (key main)" in settled.waiting.sentence
        await scene.tools.fleet.share(store)
        assert (await scene.run(ALPHA)).attempts == []
        await store.credentials.enable("alpha", "main")
        await scene.tools.fleet.share(store)
        again = await scene.run(ALPHA, progress=settled.progress)
    assert (again.state, tried(again)) == (JobState.SUCCEEDED, ["alpha None"])


async def test_a_model_that_no_key_has_is_asked_for_once_by_each_job_that_has_nothing_else(redis_url: str) -> None:
    async with stage(redis_url, {"fail": "model_missing"}, keys=["one", "two"]) as scene:
        first, second = await scene.run(ALPHA), await scene.run(ALPHA)
    assert (first.state, len(first.attempts)) == (JobState.FAILED, 2)
    assert (second.state, len(second.attempts)) == (JobState.FAILED, 1)
    assert first.result and second.result
    assert first.result.status_code == second.result.status_code == 404
    assert json.loads(second.result.body or "")["error"] == json.loads(first.result.body or "")["error"]


async def test_a_model_that_no_key_has_is_skipped_where_another_step_may_answer(redis_url: str) -> None:
    async with stage(redis_url, {"provider": "alpha", "fail": "model_missing"}) as scene:
        first, second = await scene.run(WITH_UNDERSTUDY), await scene.run(WITH_UNDERSTUDY)
    assert tried(first) == ["alpha model_missing", "beta None"]
    assert tried(second) == ["beta None"]


async def test_a_missing_secret_heals_by_itself(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url) as scene, ledger(tmp_path) as store:
        secret = scene.environ.pop("ALPHA_MAIN")
        settled = await scene.run(ALPHA)
        assert settled.state is JobState.QUEUED
        assert settled.waiting and "env.ALPHA_MAIN" in settled.waiting.sentence
        await scene.tools.fleet.share(store)
        assert [row.key for row in await store.credentials.listed()] == ["main"]
        scene.environ["ALPHA_MAIN"] = secret
        await scene.tools.fleet.share(store)
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED
        await scene.tools.fleet.share(store)
        assert await store.credentials.listed() == []


async def test_a_program_that_failed_once_is_asked_again_and_gives_the_same_secret(
    redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("sk-alpha-main-1234")
    keys = [{"name": "main", "value": f"cmd.cat {file}"}]
    async with stage(redis_url, api_keys=keys) as scene, ledger(tmp_path) as store:
        scene.tools.fleet._secrets._command_ttl_s = 0.0
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED
        file.rename(tmp_path / "away")
        assert (await scene.run(ALPHA)).state is JobState.QUEUED
        await scene.tools.fleet.share(store)
        assert (await scene.run(ALPHA)).state is JobState.QUEUED
        (tmp_path / "away").rename(file)
        await scene.tools.fleet.share(store)
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED


async def test_a_rotated_key_is_tried_with_its_new_secret(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url, only("main", Fail.CREDENTIAL)) as scene, ledger(tmp_path) as store:
        await scene.run(ALPHA)
        await scene.tools.fleet.share(store)
        scene.environ["ALPHA_MAIN"] = "sk-alpha-rotated-5678"
        await scene.tools.fleet.share(store)
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED
        await scene.tools.fleet.share(store)
        assert await store.credentials.listed() == []


async def test_a_late_refusal_of_the_old_secret_does_not_set_the_new_one_aside(redis_url: str, tmp_path: Path) -> None:
    rule = only("main", Fail.CREDENTIAL, latency_s=0.3)
    async with stage(redis_url, rule, timeout_s=5) as scene, ledger(tmp_path) as store:
        late = asyncio.create_task(scene.run(ALPHA))
        while not scene.mock.stats()["in_flight"]:
            await asyncio.sleep(0.005)
        scene.environ["ALPHA_MAIN"] = "sk-alpha-rotated-5678"
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED
        await late
        await scene.tools.fleet.share(store)
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED


async def test_a_late_answer_does_not_bring_back_a_key_that_was_set_aside_meanwhile(
    redis_url: str, tmp_path: Path
) -> None:
    async with stage(redis_url, {"latency_s": 0.3}, timeout_s=5) as scene, ledger(tmp_path) as store:
        late = asyncio.create_task(scene.run(ALPHA))
        while not scene.mock.stats()["in_flight"]:
            await asyncio.sleep(0.005)
        await store.credentials.set_aside(
            "alpha", "main", "", FailureClass.CREDENTIAL, "by hand: spring cleaning", NOW_SECRET
        )
        await scene.tools.fleet.share(store)
        assert (await late).state is JobState.SUCCEEDED
        await scene.tools.fleet.share(store)
        assert len(await store.credentials.listed()) == 1


async def test_a_key_without_money_is_probed_by_one_job_whose_turn_it_is_and_by_no_other(
    redis_url: str, tmp_path: Path
) -> None:
    keys = [{"name": "poor", "value": "env.ALPHA_MAIN", "weight": 0.001}, {"name": "two", "value": "env.BETA"}]
    rule = only("main", Fail.QUOTA, latency_s=0.4)
    async with stage(redis_url, rule, api_keys=keys, timeout_s=5) as scene, ledger(tmp_path) as store:
        await store.credentials.set_aside(
            "alpha", "poor", "", FailureClass.QUOTA, "no money", NOW_SECRET, time.time() - 1
        )
        await scene.tools.fleet.share(store)
        probe = asyncio.create_task(scene.run(ALPHA))
        while not scene.mock.stats()["in_flight"]:
            await asyncio.sleep(0.005)
        await scene.tools.fleet.share(store)
        others = [await scene.run(ALPHA) for _ in range(5)]
        assert tried(await probe) == ["alpha quota", "alpha None"]
        assert used(others) == ["two"] * 5
        assert [len(settled.attempts) for settled in others] == [1] * 5


@pytest.mark.parametrize("fail", [Fail.QUOTA, Fail.MODEL_MISSING])
async def test_an_answered_probe_brings_the_key_back(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Fail
) -> None:
    monkeypatch.setattr(setaside, "PROBE_EVERY_S", 0.2)
    async with stage(redis_url, only("main", fail, first=1)) as scene, ledger(tmp_path) as store:
        await scene.run(ALPHA)
        await scene.tools.fleet.share(store)
        await asyncio.sleep(0.25)
        assert (await scene.run(ALPHA)).state is JobState.SUCCEEDED
        await scene.tools.fleet.share(store)
        assert await store.credentials.listed() == []


async def test_a_provider_that_is_no_longer_configured_is_passed_over_and_waited_for(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        assert (await scene.run(chain("gone/m", "beta/m"))).state is JobState.SUCCEEDED
        settled = await scene.run(chain("gone/m"))
    assert settled.state is JobState.QUEUED
    assert settled.waiting and "no longer configured" in settled.waiting.sentence


async def test_a_chain_that_does_not_fall_back_on_credentials_waits_for_its_lead(redis_url: str) -> None:
    async with stage(redis_url, only("main", Fail.CREDENTIAL)) as scene:
        settled = await scene.run(chain("alpha/m", "beta/m", fallback_on=["server"]))
        assert scene.calls("beta") == 0
    assert settled.state is JobState.QUEUED


async def all_values(redis: Redis) -> str:
    """Every key and value in the test's Redis, as text."""
    words: list[object] = []
    async for key in redis.scan_iter():
        kind = (await redis.type(key)).decode()
        read = {"hash": redis.hgetall, "string": redis.get, "set": redis.smembers}[kind]
        words += [key, await read(key)]
    return repr(words)


@pytest.mark.parametrize("fail", [None, *Fail])
async def test_no_canary_sings_in_logs_redis_or_attempts(
    redis_url: str, caplog: pytest.LogCaptureFixture, fail: Fail | None
) -> None:
    prompt, secret = "CANARY-PROMPT-93c1", "canary.key.that.fits.no.mask.93c1"
    caplog.set_level(logging.DEBUG)
    async with stage(redis_url, {"provider": "alpha", "fail": fail}) as scene:
        scene.environ["ALPHA_MAIN"] = secret
        settled = await scene.run(WITH_UNDERSTUDY, prompt=prompt)
        in_redis = await all_values(scene.redis)
    assert "understudy:" in in_redis
    shown = caplog.text + in_redis + repr(settled.attempts) + repr(settled.waiting)
    assert "CANARY-PROMPT" not in shown
    assert "canary.key" not in shown + json.dumps(settled.progress) + repr(settled.result)


@pytest.mark.parametrize("status", [401, 200])
async def test_a_provider_that_repeats_the_key_it_refuses_does_not_get_it_stored(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    async with stage(redis_url) as scene:
        scene.environ["ALPHA_MAIN"] = "plain.words.as.a.key"

        async def refuse(*_: object) -> tuple[int, dict[str, str], bytes]:
            return status, {}, b'{"error":{"message":"plain.words.as.a.key is no key, said CANARY-PROMPT"}}'

        monkeypatch.setattr(scene.tools.client, "send", refuse)
        settled = await scene.run(ALPHA)
    assert settled.attempts
    assert "plain.words" not in repr(settled) + caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("word", ["a", "Answer", "completion"])
async def test_a_key_that_is_a_plain_word_changes_no_answer(redis_url: str, word: str) -> None:
    async with stage(redis_url) as scene:
        scene.environ["ALPHA_MAIN"] = word
        settled = await scene.run(ALPHA)
    assert settled.state is JobState.SUCCEEDED
    assert "***" not in repr(settled.result)


async def test_a_key_that_is_a_plain_word_hides_no_reason(redis_url: str) -> None:
    async with stage(redis_url, {"fail": "bad_request"}) as scene:
        scene.environ["ALPHA_MAIN"] = "e"
        settled = await scene.run(ALPHA)
    assert [attempt.cls for attempt in settled.attempts] == [FailureClass.BAD_REQUEST]
    assert "***" not in repr(settled.result)


async def test_a_defect_of_ours_is_told_without_quoting(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(redis_url) as scene:

        def broken(*_: object) -> None:
            raise KeyError("CANARY-PROMPT")

        monkeypatch.setattr(scene.tools.client, "send", broken)
        settled = await scene.run(ALPHA)
    assert "CANARY" not in repr(settled)
