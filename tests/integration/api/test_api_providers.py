"""GET /v1/providers: what the fleet's limits are now, for administrators."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from api_help import Served, bearer, key_for, served
from ledger_help import new_worker, open_batch, succeeded

from understudy.models.api_keys import Scope as KeyScope
from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass, Scope
from understudy.models.store import Store
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment
from understudy.worker.limits.limiter import Limiter

WORDS_OF_THE_PROVIDER = "you wrote: tell me a secret"
LEAD = {
    "kind": "openai",
    "base_url": "http://inner.example/v1",
    "api_keys": [{"name": "main", "value": "env.LEAD_KEY"}],
    "requests_per_minute": 600,
}


@pytest.fixture
async def api(store: Store, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings.model_validate({"providers": {"lead": LEAD}, "data": tmp_path})
    async with (
        served(store, time.time, settings) as opened,
        redis.asyncio.Redis.from_url(redis_url) as opened.context.redis,
    ):
        yield opened


async def shown(api: Served, **headers: Any) -> dict[str, Any]:
    async with api.client() as http:
        answer = await http.get("/v1/providers", **headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def answered(store: Store, count: int, at: float) -> None:
    """Make this many calls that begin at that time."""
    _, ids = await open_batch(store, count)
    worker = await new_worker(store)
    outcomes = [succeeded(job) for job in await store.claims.start(worker, ids)]
    for outcome in outcomes:
        outcome.attempts[0].started_at = at
    await store.claims.settle(worker, outcomes)


async def test_limits_use_and_cooldowns_of_each_model_in_use_are_shown(store: Store, api: Served) -> None:
    deployment = Deployment("lead", "large", "main", "lead:main")
    limiter = Limiter(Leases(api.context.redis, "w1"))
    await limiter.reserve([Candidate(deployment, requests_per_minute=600)], 10)
    until = await limiter.cool(deployment, Scope.MODEL, 20.0, "rate_limit at lead/large")
    await answered(store, 2, await store.now())
    document = await shown(api)
    (row,) = [each for each in document["data"] if each["model"] == "large"]
    assert document["live"] is True
    assert row["requests_per_minute"] == {"limit": 600.0, "source": "configured", "until": None, "configured": 600}
    assert (row["in_flight"]["now"], row["state"]) == (1, "cooling")
    assert [(each["until"], each["in_a_row"]) for each in row["cooldowns"]] == [(pytest.approx(until, abs=0.001), 1)]
    assert row["last_minute"] == {"answered": 2, "refused": 0, "failed": 0}


async def test_calls_before_the_last_minute_do_not_count(store: Store, api: Served) -> None:
    await answered(store, 1, await store.now() - 61)
    (row,) = (await shown(api))["data"]
    assert row["last_minute"]["answered"] == 0


async def test_no_inner_address_and_no_words_of_a_provider_leave_the_machine(store: Store, api: Served) -> None:
    await store.credentials.set_aside("lead", "main", "", FailureClass.QUOTA, WORDS_OF_THE_PROVIDER, "")
    key = await key_for(store, KeyScope.ADMIN)
    document = await shown(api, headers=bearer(key))
    (row,) = document["data"]
    assert (row["state"], row["disabled"][0]["failure"]) == ("disabled", "quota")
    assert WORDS_OF_THE_PROVIDER not in str(document) and "inner.example" not in str(document)


async def test_while_redis_is_away_the_rest_is_shown(store: Store, api: Served) -> None:
    await api.context.redis.aclose()
    api.context.redis = redis.asyncio.Redis(unix_socket_path="/nonexistent/redis.sock", retry=None)
    document = await shown(api)
    (row,) = document["data"]
    assert (document["live"], row["state"], row["in_flight"]["now"]) == (False, "unknown", None)
    assert row["requests_per_minute"]["limit"] == 600
