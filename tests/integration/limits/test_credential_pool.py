"""Credentials between workers and ledger, and what a failure means for all jobs."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ledger_help import sqlite_ledger
from run_help import Stage, chain, stage

from understudy.models.failure import Failure, FailureClass, Scope
from understudy.models.routing.chain import Step
from understudy.models.store import StoreUnavailable
from understudy.worker.limits.breaker import BREAK_AFTER
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.grants import Grant, Hold, Refusal

STEP = Step(provider="alpha", model="m")
ALPHA = chain("alpha/m")


def failure(cls: FailureClass, **more: Any) -> Failure:
    return Failure(cls, "no", status=500, sure=True, **more)


async def learn(scene: Stage, what: Failure, model: str = "m", tenant: str = "acme") -> None:
    fleet = scene.tools.fleet
    candidate, target = next(iter((await fleet.ways(Step(provider="alpha", model=model))).items()))
    number = fleet.begun(candidate.deployment)
    grant = Grant(candidate, 0.0, 1, 0, time.time() * 1000, 0.0)
    fleet.weigh(candidate.deployment, target, what, "job_1", answers=False)
    await fleet.learn(grant, what, scene.tools.limiter, number, tenant)


async def held_by(scene: Stage, model: str = "m") -> Hold | None:
    candidates = scene.tools.fleet.usable(Step(provider="alpha", model=model))
    reply = await scene.tools.limiter.reserve(candidates, 1)
    return reply.hold if isinstance(reply, Refusal) else None


@pytest.mark.parametrize(("scope", "other"), [(Scope.MODEL, None), (Scope.ACCOUNT, Hold.COOLDOWN)])
async def test_a_rate_limit_cools_what_it_names(redis_url: str, scope: Scope, other: Hold | None) -> None:
    async with stage(redis_url) as scene:
        await learn(scene, failure(FailureClass.RATE_LIMIT, hint_s=30, scope=scope))
        assert await held_by(scene) is Hold.COOLDOWN
        assert await held_by(scene, "another") is other


async def test_an_overload_rests_the_model_for_every_key(redis_url: str) -> None:
    async with stage(redis_url, keys=["one", "two"]) as scene:
        await learn(scene, failure(FailureClass.OVERLOADED))
        assert await held_by(scene) is Hold.BREAKER
        assert await held_by(scene, "another") is None


async def test_failures_in_a_row_open_the_breaker_and_an_answer_between_them_does_not(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        fleet = scene.tools.fleet
        for _ in range(BREAK_AFTER - 1):
            await learn(scene, failure(FailureClass.SERVER))
        candidate, target = next(iter((await fleet.ways(STEP)).items()))
        fleet.answered(candidate.deployment, target, fleet.begun(candidate.deployment), "acme")
        for _ in range(BREAK_AFTER - 1):
            await learn(scene, failure(FailureClass.TIMEOUT))
        assert await held_by(scene) is None
        await learn(scene, failure(FailureClass.CONNECT))
        assert await held_by(scene) is Hold.BREAKER


async def test_failures_of_one_tenant_alone_do_not_open_the_breaker_for_the_others(redis_url: str) -> None:
    async with stage(redis_url) as scene:
        fleet = scene.tools.fleet
        candidate, target = next(iter((await fleet.ways(STEP)).items()))
        for _ in range(BREAK_AFTER - 1):
            await learn(scene, failure(FailureClass.SERVER), tenant="rival")
        fleet.answered(candidate.deployment, target, fleet.begun(candidate.deployment), "acme")
        await learn(scene, failure(FailureClass.SERVER), tenant="rival")
        fleet.answered(candidate.deployment, target, fleet.begun(candidate.deployment), "acme")
        for _ in range(3 * BREAK_AFTER):
            await learn(scene, failure(FailureClass.SERVER), tenant="rival")
        assert await held_by(scene) is None


async def test_keys_are_asked_in_proportion_to_their_weights(redis_url: str) -> None:
    keys = [{"name": "one", "value": "env.ALPHA_ONE", "weight": 3}, {"name": "two", "value": "env.ALPHA_ONE"}]
    async with stage(redis_url, api_keys=keys) as scene:
        scene.environ["ALPHA_ONE"] = "sk-shared-1234"
        firsts = Counter([next(iter(await scene.tools.fleet.ways(STEP))).deployment.key for _ in range(2000)])
    assert 0.7 < firsts["one"] / 2000 < 0.8


async def test_what_one_worker_finds_out_another_knows(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url) as scene, sqlite_ledger(tmp_path) as store:
        fleet = scene.tools.fleet
        other = CredentialPool(scene.settings, fleet._secrets, time.time, scene.tools.rng)
        await learn(scene, failure(FailureClass.CREDENTIAL))
        await fleet.share(store)
        await other.share(store)
        assert other.usable(STEP) == []
        assert other.why_none(STEP).cls is FailureClass.CREDENTIAL


async def test_news_is_kept_for_as_long_as_the_ledger_is_away(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(redis_url) as scene, sqlite_ledger(tmp_path) as store:
        fleet = scene.tools.fleet
        await learn(scene, failure(FailureClass.QUOTA))

        async def away(*_: object) -> None:
            raise StoreUnavailable("the database went away")

        with monkeypatch.context() as patched, pytest.raises(StoreUnavailable):
            patched.setattr(store.credentials, "set_aside", away)
            await fleet.share(store)
        assert fleet.usable(STEP) == []
        await fleet.share(store)
        assert [row.failure for row in await store.credentials.listed()] == [FailureClass.QUOTA]


async def test_news_that_comes_while_the_ledger_is_told_is_told_next(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(redis_url, keys=["one", "two"]) as scene, sqlite_ledger(tmp_path) as store:
        fleet, set_aside = scene.tools.fleet, store.credentials.set_aside
        await learn(scene, failure(FailureClass.CREDENTIAL))

        async def meanwhile(*words: Any) -> None:
            if fleet.usable(STEP):
                await learn(scene, failure(FailureClass.CREDENTIAL))
            await set_aside(*words)

        monkeypatch.setattr(store.credentials, "set_aside", meanwhile)
        await fleet.share(store)
        assert {row.key for row in await store.credentials.listed()} == {"one", "two"}
        assert fleet.usable(STEP) == []


async def test_news_that_comes_while_the_ledger_is_read_is_not_forgotten(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(redis_url) as scene, sqlite_ledger(tmp_path) as store:
        fleet, read = scene.tools.fleet, store.credentials.listed

        async def meanwhile() -> Any:
            rows = await read()
            await learn(scene, failure(FailureClass.CREDENTIAL))
            return rows

        monkeypatch.setattr(store.credentials, "listed", meanwhile)
        await fleet.share(store)
        assert fleet.usable(STEP) == []


async def test_a_provider_without_any_key_needs_a_person(redis_url: str) -> None:
    async with stage(redis_url, api_keys=[], preset="groq") as scene:
        absence = scene.tools.fleet.why_none(STEP)
        assert scene.tools.fleet.usable(STEP) == []
    assert absence.mendable and "no credential" in absence.text


async def test_an_unknown_refusal_is_logged_with_its_status_and_without_its_words(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(redis_url) as scene:
        await learn(scene, Failure(FailureClass.UNKNOWN, "CANARY", status=418))
    assert "418" in caplog.text and "CANARY" not in caplog.text
