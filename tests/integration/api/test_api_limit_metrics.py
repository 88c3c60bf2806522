"""The limits that Prometheus reads are those that the limiter uses."""

import re
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest
import redis.asyncio
import yaml
from api_help import Served, served
from ledger_help import new_worker, open_batch, succeeded
from prometheus_client.parser import text_string_to_metric_families

from understudy.models.config.settings import Settings
from understudy.models.failure import Scope
from understudy.models.store import Store
from understudy.producer.api import monitoring
from understudy.worker.failures import LimitSignals
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment
from understudy.worker.limits.limiter import Limiter

SECRET = "sk-never-shown"
KEYS = [{"name": "main", "value": "env.A", "account": "team"}, {"name": "spare", "value": "env.B", "account": "team"}]
LEAD = {
    "kind": "openai",
    "base_url": "http://127.0.0.1:1/v1",
    "api_keys": KEYS,
    "models": ["large"],
    "requests_per_minute": 600,
}
DEPLOYMENT = Deployment("lead", "large", "main", "lead:team")
PLACE = (("account", "lead:team"), ("model", "large"), ("provider", "lead"))
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def ledger_url() -> None:
    """The ledger is not involved, so one kind is enough."""


@pytest.fixture
async def api(store: Store, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(monitoring, "KEPT_S", 0.0)
    monkeypatch.setenv("A", SECRET)
    settings = Settings.model_validate({"providers": {"lead": LEAD}, "data": tmp_path})
    async with (
        served(store, time.time, settings) as opened,
        redis.asyncio.Redis.from_url(redis_url) as opened.context.redis,
    ):
        yield opened


async def scraped(api: Served) -> Samples:
    async with api.client() as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200 and SECRET not in answer.text
    families = text_string_to_metric_families(answer.text)
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


async def test_limits_flights_and_cooldowns_of_an_account_are_one_series_each(api: Served) -> None:
    limiter = Limiter(Leases(api.context.redis, "w1"))
    await limiter.reserve([Candidate(DEPLOYMENT, requests_per_minute=600)], 10)
    await limiter.advertised(DEPLOYMENT, LimitSignals(tokens_limit=90_000))
    await limiter.cool(DEPLOYMENT, Scope.ACCOUNT, 20.0, "rate_limit")
    seen = await scraped(api)
    assert seen["understudy_calls_in_flight", PLACE] == 1
    assert 15 < seen["understudy_cooldown_seconds", PLACE] <= 20
    assert seen["understudy_requests_per_minute", (*PLACE, ("source", "configured"))] == 600
    assert seen["understudy_tokens_per_minute", (*PLACE, ("source", "advertised"))] == 90_000


async def test_what_is_configured_is_shown_before_the_first_call(api: Served) -> None:
    seen = await scraped(api)
    assert seen["understudy_calls_in_flight", PLACE] == seen["understudy_cooldown_seconds", PLACE] == 0
    assert not [name for name, _ in seen if name == "understudy_tokens_per_minute"]


async def test_callers_who_name_many_models_do_not_make_many_series(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "SERIES_MAX", 3)
    limiter = Limiter(Leases(api.context.redis, "w1"))
    for number in range(6):
        named = Deployment("lead", f"model-{number}", "main", "lead:team")
        await limiter.reserve([Candidate(named, requests_per_minute=600)], 10)
    flights = [labels for name, labels in await scraped(api) if name == "understudy_calls_in_flight"]
    assert len(flights) == 3 and PLACE not in flights


async def test_without_redis_the_other_figures_are_still_there(api: Served) -> None:
    await api.context.redis.aclose()
    api.context.redis = redis.asyncio.Redis(unix_socket_path="/nonexistent/redis.sock", retry=None)
    seen = await scraped(api)
    assert "understudy_workers" in {name for name, _ in seen}
    assert "understudy_calls_in_flight" not in {name for name, _ in seen}


async def test_alerts_ask_for_metrics_and_labels_that_exist(api: Served, store: Store, redis_url: str) -> None:
    """Counters of calls appear with the first call."""
    _, ids = await open_batch(store, 2)
    await scraped(api)
    worker = await new_worker(store)
    await store.claims.settle(worker, [succeeded(job) for job in await store.claims.start(worker, ids[:1])])
    await scraped(api)
    found: dict[str, set[str]] = {}
    for name, labels in await scraped(api):
        found.setdefault(name, set()).update(label for label, _ in labels)
    rules = yaml.safe_load((Path(__file__).parents[3] / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(asked) > 5
    for name, matchers in re.findall(r"(understudy_\w+)(?:\{([^}]*)\})?", " ".join(asked)):
        assert name in found
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)", matchers)) <= found[name]


async def test_the_version_of_the_process_is_shown(api: Served) -> None:
    assert (await scraped(api))["understudy_build_info", (("version", version("understudy")),)] == 1
