"""Helpers for tests that run jobs: fake providers, a real limiter, and the other resources of a worker."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from understudy.models.config.secrets import Secrets
from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import BudgetKey, BudgetRecord
from understudy.models.costs.pricing import Pricing
from understudy.models.jobs.execution import Settled, StartedJob
from understudy.models.queue import keys as redis_keys
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.worker.budgets.fallback_quota import FallbackQuota
from understudy.worker.budgets.reservations import Budgets
from understudy.worker.job.run import JobRun
from understudy.worker.job.step_selection import NearlyDone, StepSelection
from understudy.worker.job_resources import JobResources
from understudy.worker.leases import Leases
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.estimates import Estimates, ExpectedCosts
from understudy.worker.limits.latency import Latencies
from understudy.worker.limits.limiter import Limiter
from understudy.worker.mock import Fail, running_mock
from understudy.worker.mock.server import MockServer
from understudy.worker.planner.budget_sync import BudgetSync
from understudy.worker.planner.planner import Planner
from understudy.worker.providers.client import ProviderClient

PROMPT = "How many legs has a spider?"

SOON_S, PATIENT_S = 0.4, 20.0
"""Timeouts of calls: where they are to time out, and where a busy machine must not make them."""


@dataclass
class Stage:
    """Providers `alpha` and `beta` (and any other name) at one mock, and the resources of one worker."""

    mock: MockServer
    redis: Redis
    leases: Leases
    settings: Settings
    environ: dict[str, str]
    tools: JobResources
    known: dict[BudgetKey, BudgetRecord]  # what a ledger would say about budgets

    async def run(self, chain: Chain, **job: Any) -> Settled:
        return await JobRun(started(chain, **job), chain, self.tools).run()

    def calls(self, provider: str) -> int:
        """How many requests the mock has counted for a provider."""
        of = self.mock.stats()["providers"].get(provider)
        return sum(of["statuses"].values()) if of else 0


def chain(*steps: str, **policy: Any) -> Chain:
    parsed = [Step(provider=name.partition("/")[0], model=name.partition("/")[2]) for name in steps]
    return Chain.model_validate({"steps": parsed, **policy})


def started(of: Chain, **fields: Any) -> StartedJob:
    body = {"messages": [{"role": "user", "content": fields.pop("prompt", PROMPT)}], **fields.pop("body", {})}
    job_id = fields.pop("job_id", "job_1")
    words = {"priority": Priority.BULK, "tokens": 9, "expires_at": time.time() + 3600, **fields}
    return StartedJob(job_id, "batch_1", "default", 1, of.id, body=json.dumps(body), **words)


@asynccontextmanager
async def stage(
    redis_url: str,
    *rules: dict[str, Any],
    keys: Iterable[str] = ("main",),
    ledger: Store | None = None,
    **more: Any,
) -> AsyncIterator[Stage]:
    """`keys` names alpha's keys, whose secrets are `sk-alpha-<name>-1234`; `more` changes alpha's section.

    `ledger` is needed by chains with a `max_fallback_share`.
    """
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(running_mock({"rules": rules}))
        names = list(keys)
        environ = {f"ALPHA_{name.upper()}": f"sk-alpha-{name}-1234" for name in names} | {"BETA": "sk-beta-main-1234"}
        alpha = {"api_keys": [{"name": name, "value": f"env.ALPHA_{name.upper()}"} for name in names]}
        sections = {"alpha": {**alpha, **more}, "beta": {"api_keys": [{"name": "main", "value": "env.BETA"}]}}
        for name, section in sections.items():
            kind = section.setdefault("kind", "openai")
            section.setdefault("base_url", mock.base_url(name) + ("/v1" if kind == "openai" else ""))
            section.setdefault("timeout_s", SOON_S if any(_stalls(rule, name) for rule in rules) else PATIENT_S)
            section.setdefault("prices", {"m": {"input": 1000.0, "output": 2000.0}})
        settings = Settings.model_validate({"providers": sections})
        redis = await stack.enter_async_context(Redis.from_url(redis_url))
        client = await stack.enter_async_context(ProviderClient(max_connections=50))
        fleet = CredentialPool(settings, Secrets(environ), time.time, Random(7))
        pricing = Pricing(settings)
        known: dict[BudgetKey, BudgetRecord] = {}
        leases = Leases(redis, "w1")
        budgets = Budgets(settings, leases, partial(_read, known), time.time)
        estimates = Estimates()
        limiter, costs = Limiter(leases), ExpectedCosts(pricing, estimates)
        choice = StepSelection(settings, pricing, Latencies(leases.scripts))
        quota, tails = FallbackQuota(leases, cast(Store, ledger), quiet_s=0.0), NearlyDone(cast(Store, ledger))
        tools = JobResources(
            fleet, limiter, client, pricing, costs, budgets, choice, quota, tails, time.time, Random(7), estimates
        )
        yield Stage(mock, redis, leases, settings, environ, tools, known)


@asynccontextmanager
async def answering(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[str], tuple[int, Any] | None], **more: Any
) -> AsyncIterator[Stage]:
    """A stage whose provider alpha refuses the given prompts with a status and an error, and answers where that is
    None.

    Without an error the body is empty; bytes are the whole body.
    """
    async with stage(redis_url, **more) as scene:
        send = scene.tools.client.send

        async def refuse_or_send(request: Any, endpoint: Any, timeout_s: float) -> Any:
            if "/alpha" in endpoint.base_url:
                refusal = refuses(json.loads(request.content)["messages"][0]["content"])
                if refusal is not None:
                    status, error = refusal
                    body = error if isinstance(error, bytes) else json.dumps({"error": error}).encode()
                    return status, {}, b"" if error is None else body
            return await send(request, endpoint, timeout_s)

        monkeypatch.setattr(scene.tools.client, "send", refuse_or_send)
        yield scene


def _stalls(rule: Mapping[str, Any], provider: str) -> bool:
    return rule.get("fail") in (Fail.STALL, Fail.DRIP) and rule.get("provider", provider) == provider


async def _read(
    known: Mapping[BudgetKey, BudgetRecord], subjects: Sequence[BudgetKey], of_providers: Mapping[BudgetKey, float]
) -> dict[BudgetKey, BudgetRecord]:
    given = {subject: BudgetRecord(usd, 0.0, 0.0) for subject, usd in of_providers.items()}
    return {**given, **{each: known[each] for each in [*subjects, *of_providers] if each in known}}


async def without_slow_start(redis: Redis, *providers: str) -> None:
    """As if the model m of these providers had recently answered many calls."""
    for provider in providers:
        await redis.hset(redis_keys.rate(f"{provider}:main", "m"), "window", 1000)


def answered(settled: Settled) -> dict[str, Any]:
    """The body of a job that succeeded."""
    assert settled.result is not None and settled.result.body is not None, settled
    document: dict[str, Any] = json.loads(settled.result.body)
    return document


def tried(settled: Settled) -> list[str]:
    """`provider failure` of each call in order; the failure of one that answered is None."""
    return [f"{call.provider} {call.cls}" for call in settled.attempts]


def budget_sync_of(scene: Stage, store: Store) -> BudgetSync:
    """The planner's view of the scene's budgets, as this ledger knows them."""
    read = store.budgets.read
    return BudgetSync(store, Budgets(scene.settings, Leases(scene.redis, "w1"), read, time.time), scene.tools.costs)


def planner_of(scene: Stage, store: Store, balances: BudgetSync | None = None, **more: Any) -> Planner:
    """A planner in the scene's worker, for this ledger."""
    tools, balances = scene.tools, balances or budget_sync_of(scene, store)
    quota = FallbackQuota(Leases(scene.redis, "w1"), store)
    return Planner(scene.redis, store, tools.fleet, tools.limiter, tools.choice, quota, balances, **more)
