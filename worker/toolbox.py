"""Opens and closes what a worker process needs of the world."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random

import redis.asyncio

from models.ledger_clock import LedgerClock
from models.pricing import Pricing
from models.secrets import Secrets
from models.settings import Settings
from models.store import Store, open_store
from models.tables import Worker
from worker.announce import Announcer
from worker.budgets import Budgets
from worker.canary import Canary
from worker.choice import Choice
from worker.costs import Costs
from worker.estimates import Estimates
from worker.fleet import Fleet
from worker.latency import Latencies
from worker.limits import Limiter, LimitsUnavailable
from worker.places import Places
from worker.planner import Planner
from worker.providers.client import ProviderClient
from worker.purses import Purses
from worker.tails import Tails
from worker.tools import Tools
from worker.webhook_sender import Sender
from worker.webhooks import IN_FLIGHT, Deliverer


@dataclass(frozen=True, slots=True)
class Toolbox:
    settings: Settings
    redis: redis.asyncio.Redis
    store: Store
    tools: Tools
    deliverer: Deliverer
    announcer: Announcer
    purses: Purses
    clock: LedgerClock

    async def compare_clocks(self) -> None:
        """Raises StoreOutage, LimitsUnavailable."""
        await self.clock.read()
        await self.tools.limiter.compare_clocks(self.clock)

    def planner(self, canary: Canary) -> Planner:
        """One that plans with these tools."""
        of = self.tools
        return Planner(
            *(self.redis, self.store, of.fleet, of.limiter, of.choice, self.purses),
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
) -> AsyncIterator[Toolbox]:
    """`redis` stays its owner's to close. `concurrency` bounds the connections to providers."""
    rng = Random()
    async with (
        open_store(settings.database_url, settings.data) as store,
        ProviderClient(concurrency, settings.data) as client,
        Sender(settings.webhooks, IN_FLIGHT) as sender,
    ):
        clock = LedgerClock(store.now)
        await clock.read()
        fleet = Fleet(settings, Secrets(), clock, rng)
        await fleet.share(store)
        limiter = Limiter(redis, worker_id, lease_s=settings.worker.lease_s)
        with suppress(LimitsUnavailable):  # then the clocks are compared when Redis is back
            await limiter.compare_clocks(clock)
        budgets = Budgets(settings, redis, worker_id, store.budgets, clock, lease_s=settings.worker.lease_s)
        pricing = Pricing(settings)
        estimates, places = Estimates(), Places(redis, store)
        costs, choice = Costs(settings, pricing, estimates), Choice(settings, pricing, Latencies(redis))
        tools = Tools(
            fleet, limiter, client, pricing, costs, budgets, choice, places, Tails(store), clock, rng, estimates
        )
        deliverer = Deliverer(worker_id, store, settings, sender, clock, rng)
        announcer = Announcer(redis)
        try:
            purses = Purses(store, budgets, tools.costs)
            yield Toolbox(settings, redis, store, tools, deliverer, announcer, purses, clock)
        finally:
            await announcer.close()
