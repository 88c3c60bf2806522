"""Opens and closes the external resources of a worker process."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random

import redis.asyncio

from understudy.models.config.secrets import Secrets
from understudy.models.config.settings import Settings
from understudy.models.costs.pricing import Pricing
from understudy.models.ledger_clock import LedgerClock
from understudy.models.store import Store, open_store
from understudy.models.tables import Worker
from understudy.worker.budgets.fallback_quota import FallbackQuota
from understudy.worker.budgets.reservations import Budgets
from understudy.worker.job.settle import Announcer
from understudy.worker.job.step_selection import NearlyDone, StepSelection
from understudy.worker.job_resources import JobResources
from understudy.worker.leases import Leases
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.estimates import Estimates, ExpectedCosts
from understudy.worker.limits.latency import Latencies
from understudy.worker.limits.limiter import Limiter
from understudy.worker.planner.budget_sync import BudgetSync
from understudy.worker.planner.canary import Canary
from understudy.worker.planner.planner import Planner
from understudy.worker.providers.client import ProviderClient
from understudy.worker.redis_scripts import RedisUnavailable
from understudy.worker.webhooks.delivery import IN_FLIGHT, Deliverer
from understudy.worker.webhooks.sender import Sender


@dataclass(frozen=True, slots=True)
class WorkerResources:
    settings: Settings
    redis: redis.asyncio.Redis
    leases: Leases
    store: Store
    tools: JobResources
    deliverer: Deliverer
    announcer: Announcer
    balances: BudgetSync
    clock: LedgerClock

    async def compare_clocks(self) -> None:
        """Raises StoreOutage, RedisUnavailable."""
        await self.clock.read()
        await self.tools.limiter.compare_clocks(self.clock)

    def planner(self, canary: Canary) -> Planner:
        """A planner with these resources."""
        of = self.tools
        return Planner(
            *(self.redis, self.store, of.fleet, of.limiter, of.choice, of.fallback_quota, self.balances),
            estimates=of.estimates,
            canary=canary,
        )


def worker_row(worker_id: str, concurrency: int) -> Worker:
    """What the ledger records of this process."""
    return Worker(
        id=worker_id,
        host=socket.gethostname(),
        pid=os.getpid(),
        concurrency=concurrency,
        started_at=0.0,
        lease_until=0.0,
    )


@asynccontextmanager
async def open_toolbox(
    settings: Settings, redis: redis.asyncio.Redis, worker_id: str, concurrency: int
) -> AsyncIterator[WorkerResources]:
    """The owner of `redis` closes it. `concurrency` bounds the connections to providers."""
    rng = Random()
    async with (
        open_store(settings.database_url, settings.data) as store,
        ProviderClient(concurrency, settings.data) as client,
        Sender(settings.webhooks, IN_FLIGHT) as sender,
    ):
        clock = LedgerClock(store.now)
        await clock.read()
        fleet = CredentialPool(settings, Secrets(), clock, rng)
        await fleet.share(store)
        leases = Leases(redis, worker_id, settings.worker.lease_s)
        limiter = Limiter(leases)
        with suppress(RedisUnavailable):  # the clocks are compared once Redis is back
            await limiter.compare_clocks(clock)
        budgets = Budgets(settings, leases, store.budgets.read, clock)
        pricing = Pricing(settings)
        estimates, quota = Estimates(), FallbackQuota(leases, store)
        costs, choice = ExpectedCosts(pricing, estimates), StepSelection(settings, pricing, Latencies(leases.scripts))
        tools = JobResources(
            fleet, limiter, client, pricing, costs, budgets, choice, quota, NearlyDone(store), clock, rng, estimates
        )
        deliverer = Deliverer(worker_id, store, settings, sender, clock, rng)
        announcer = Announcer(redis)
        try:
            balances = BudgetSync(store, budgets, tools.costs)
            yield WorkerResources(settings, redis, leases, store, tools, deliverer, announcer, balances, clock)
        finally:
            await announcer.close()
