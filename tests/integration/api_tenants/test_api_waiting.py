"""Batches and jobs over HTTP say why they wait, for whom and until when."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from api_help import Served, served
from ledger_help import new_jobs, new_worker, open_batch, put_back, singles
from openai.types import Batch

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass, Scope
from understudy.models.jobs.wait_reasons import Waiting, put_back_at
from understudy.models.queue import keys
from understudy.models.routing.chain import Chain, Step
from understudy.models.store import Store
from understudy.producer.api.jobs import responses
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Deployment
from understudy.worker.limits.limiter import Limiter

PLACE = ("lead", "large", "lead:main")
LEAD = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_keys": [{"name": "main", "value": "env.A"}]}
SENTENCE = put_back_at("cooling down after a refusal", *PLACE)
COOLING = Waiting("cooling down after a refusal at lead/large", "cooldown", *PLACE, until=1e10)


@pytest.fixture
async def api(store: Store, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with (
        served(store, time.time, Settings.model_validate({"data": tmp_path, "providers": {"lead": LEAD}})) as opened,
        redis.asyncio.Redis.from_url(redis_url) as opened.context.redis,
    ):
        await opened.context.redis.set(keys.PLANNER, "w1")
        yield opened


async def waiting(api: Served, path: str) -> dict[str, Any] | None:
    async with api.client() as http:
        answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    found: dict[str, Any] | None = document.get("understudy", document)["waiting"]
    return found


async def test_without_workers_nothing_moves_and_a_batch_says_so(store: Store, api: Served) -> None:
    batch_id, _ = await open_batch(store, 1)
    said = await waiting(api, f"/v1/batches/{batch_id}")
    assert said is not None
    assert (said["hold"], said["until"]) == ("worker", None) and "no worker is running" in said["reason"]
    async with api.client() as http:
        (listed,) = (await http.get("/v1/batches")).json()["data"]
    assert listed["understudy"]["waiting"] == said


async def test_a_missing_planner_and_an_unreachable_queue_are_reported(store: Store, api: Served) -> None:
    await new_worker(store)
    batch_id, _ = await open_batch(store, 1)
    await api.context.redis.delete(keys.PLANNER)
    said = await waiting(api, f"/v1/batches/{batch_id}")
    assert said is not None and said["hold"] == "planner"
    await api.context.redis.aclose()
    api.context.redis = redis.asyncio.Redis(unix_socket_path="/nonexistent/redis.sock", retry=None)
    said = await waiting(api, f"/v1/batches/{batch_id}")
    assert said is not None and said["hold"] == "queue"


async def test_the_planners_reason_is_shown_while_the_batch_is_stopped(store: Store, api: Served) -> None:
    worker = await new_worker(store)
    batch_id, ids = await open_batch(store, 2)
    assert await waiting(api, f"/v1/batches/{batch_id}") is None
    await store.planning.say_waiting({batch_id: COOLING})
    said = await waiting(api, f"/v1/batches/{batch_id}")
    assert said == {
        "reason": COOLING.reason,
        "hold": "cooldown",
        "provider": "lead",
        "model": "large",
        "account": "lead:main",
        "until": 1e10,
        "who_can_help": None,
    }
    await store.claims.start(worker, ids[:1])
    assert await waiting(api, f"/v1/batches/{batch_id}") is None


async def test_a_batch_that_is_held_or_has_ended_waits_for_nothing(store: Store, api: Served) -> None:
    batch_id, _ = await open_batch(store, 1)
    await store.batch_lifecycle.pause(batch_id, "by hand")
    assert await waiting(api, f"/v1/batches/{batch_id}") is None
    await store.batch_lifecycle.resume(batch_id)
    await store.batch_lifecycle.cancel(batch_id)
    assert await waiting(api, f"/v1/batches/{batch_id}") is None


async def test_a_batch_whose_jobs_were_all_put_back_waits_for_the_first_of_them(store: Store, api: Served) -> None:
    """The planner says nothing about it, because no job may start."""
    worker = await new_worker(store)
    batch_id, ids = await open_batch(store, 3)
    first, second, third = await store.claims.start(worker, ids)
    soon = await store.now() + 100
    await store.claims.settle(worker, [put_back(first, soon + 50, "else"), put_back(second, soon, SENTENCE)])
    assert await waiting(api, f"/v1/batches/{batch_id}") is None
    await store.claims.settle(worker, [put_back(third, soon + 1, SENTENCE)])
    said = await waiting(api, f"/v1/batches/{batch_id}")
    assert said is not None
    assert (said["reason"], said["provider"], said["model"], said["account"]) == (COOLING.reason, *PLACE)
    assert (said["hold"], said["until"]) == ("put_back", pytest.approx(soon, abs=0.001))


async def test_one_job_that_may_start_is_enough_to_wait_for_no_time(store: Store, api: Served) -> None:
    """Once its first jobs have succeeded: until then the other jobs are not considered waiting."""
    worker = await new_worker(store)
    batch_id, ids = await open_batch(store, 2)
    (started,) = await store.claims.start(worker, ids[:1])
    await store.claims.settle(worker, [put_back(started, await store.now() + 100, SENTENCE)])
    said = await waiting(api, f"/v1/batches/{batch_id}")
    assert said is not None and said["hold"] == "put_back"
    await store.canary.stop_watching([batch_id])
    assert await waiting(api, f"/v1/batches/{batch_id}") is None


async def test_a_single_job_says_what_it_was_put_back_for(store: Store, api: Served) -> None:
    worker = await new_worker(store)
    (job_id,) = await singles(store, 1)
    assert await waiting(api, f"/v1/jobs/{job_id}") is None
    (job,) = await store.claims.start(worker, [job_id])
    until = await store.now() + 100
    await store.claims.settle(worker, [put_back(job, until, SENTENCE)])
    said = await waiting(api, f"/v1/jobs/{job_id}")
    assert said is not None
    assert (said["provider"], said["model"], said["account"]) == PLACE
    assert said["until"] == pytest.approx(until, abs=0.001)


async def test_a_single_job_that_no_worker_takes_says_so_after_a_while(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = await singles(store, 1)
    assert await waiting(api, f"/v1/jobs/{job_id}") is None
    monkeypatch.setattr(responses, "SOON_S", -1.0)
    said = await waiting(api, f"/v1/jobs/{job_id}")
    assert said is not None and said["hold"] == "worker"


async def test_a_single_job_that_waits_in_the_ledger_says_for_which_step(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not put back: the planner leaves it where it is."""
    monkeypatch.setattr(responses, "SOON_S", -1.0)
    await new_worker(store)
    chain = Chain(steps=(Step(provider="lead", model="large"),))
    (job,) = await new_jobs(store, 1, chain)
    await store.intake.accept_jobs("default", [job])
    assert await waiting(api, f"/v1/jobs/{job.id}") is None
    limiter = Limiter(Leases(api.context.redis, "w1"))
    until = await limiter.cool(Deployment("lead", "large", "main", "lead:main"), Scope.MODEL, 20.0, "rate_limit")
    said = await waiting(api, f"/v1/jobs/{job.id}")
    assert said is not None
    assert (said["provider"], said["model"], said["account"], said["hold"]) == (*PLACE, "cooldown")
    assert said["until"] == pytest.approx(until, abs=0.001)


async def test_a_job_of_a_batch_waits_for_what_its_batch_waits_for(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "SOON_S", -1.0)
    await new_worker(store)
    batch_id, (job_id,) = await open_batch(store, 1)
    await store.planning.say_waiting({batch_id: Waiting("the budget is spent", "budget")})
    said = await waiting(api, f"/v1/jobs/{job_id}")
    assert said is not None and said["hold"] == "budget"
    await store.batch_lifecycle.pause(batch_id, "by hand")
    said = await waiting(api, f"/v1/jobs/{job_id}")
    assert said is not None and said["reason"] == "its batch is paused: by hand"


async def batch_object(api: Served, batch_id: str) -> dict[str, Any]:
    async with api.client() as http:
        document: dict[str, Any] = (await http.get(f"/v1/batches/{batch_id}")).json()
    return document


async def test_who_polls_a_paused_batch_sees_why_where_openais_object_has_errors(store: Store, api: Served) -> None:
    batch_id, _ = await open_batch(store, 1, input_file_id="file_1")
    assert (await batch_object(api, batch_id))["errors"] is None
    await store.batch_lifecycle.pause(batch_id, "the first 10 jobs all failed: bad_request at lead/large")
    seen = await batch_object(api, batch_id)
    batch = Batch.model_validate(seen)
    assert batch.status == "in_progress" and batch.errors is not None and batch.errors.data is not None
    (error,) = batch.errors.data
    assert error.code == "batch_paused" and error.message is not None
    assert "bad_request at lead/large" in error.message and f"/v1/batches/{batch_id}/resume" in error.message
    assert seen["understudy"]["who_can_help"] == "owner"
    await store.batch_lifecycle.resume(batch_id)
    seen = await batch_object(api, batch_id)
    assert seen["errors"] is None


async def test_a_batch_that_waits_for_the_operator_says_so_to_who_polls(store: Store, api: Served) -> None:
    batch_id, _ = await open_batch(store, 1)
    await store.batch_lifecycle.block({batch_id: "no key of lead is accepted"})
    seen = await batch_object(api, batch_id)
    assert seen["errors"]["data"] == [
        {
            "code": "batch_paused",
            "message": "the batch waits for the operator: no key of lead is accepted",
            "param": None,
            "line": None,
        }
    ]
    assert seen["understudy"]["who_can_help"] == "operator" and seen["understudy"]["paused"] is None


async def test_a_job_whose_key_is_refused_says_who_can_help(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "SOON_S", -1.0)
    await new_worker(store)
    (job_id,) = await singles(store, 1)
    await store.credentials.set_aside("lead", "main", "", FailureClass.CREDENTIAL, "Incorrect API key provided")
    async with api.client() as http:
        assert (await http.get(f"/v1/jobs/{job_id}/result")).headers["retry-after"] == "60"
    said = await waiting(api, f"/v1/jobs/{job_id}")
    assert said is not None
    assert (said["hold"], said["who_can_help"], said["provider"]) == ("credential", "operator", "lead")
    assert said["reason"].startswith("no key of lead is accepted") and said["until"] is None
