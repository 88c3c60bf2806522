"""The context shared by all requests, created when the server starts."""

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.memory_room import Headroom
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.data_rules import Rules
from understudy.models.routing.route import Router
from understudy.models.schemas.json_schema import SchemaTurns
from understudy.models.store import Store
from understudy.producer.api.access.backlog import Backlogs
from understudy.producer.api.access.keyring import Keyring, RejectedKeys
from understudy.producer.api.files.blobs import Blobs
from understudy.producer.api.files.delivery_room import IN_MEMORY, ON_DISK, DeliveryRoom
from understudy.producer.api.jobs.waiters import Waiters
from understudy.producer.api.monitoring import Metrics, Readiness

READ_BYTES = 16 * 1024 * 1024
"""Bytes of answers that are read at the same time for all callers, or one answer if that is more. They take about four
times the memory."""

RULES_KEPT_S = 5.0
MOST_ROUTERS = 100
"""Routers to cache, least recently used dropped first; each remembers thousands of chains."""


class TenantRules:
    """The data rules of tenants, cached from the ledger, and routers that apply them."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._read: dict[str, tuple[float, Rules]] = {}
        self._routers: dict[Hashable, Router] = {}

    async def of(self, store: Store, tenant: str) -> Rules:
        """The rules of a tenant, at most RULES_KEPT_S seconds old. Raises StoreError."""
        read_at, rules = self._read.get(tenant, (float("-inf"), None))
        if rules is None or self._monotonic() - read_at >= RULES_KEPT_S:
            rules = await store.tenants.rules(tenant)
            self._read[tenant] = (self._monotonic(), rules)
        return rules

    def router(self, settings: Settings, rules: Rules, endpoint: Endpoint) -> Router:
        """A router shared by all tenants with these rules. It caches the chains that requests use."""
        tags = (tuple(sorted(each.items())) for each in (rules.require, rules.forbid))
        name = (endpoint, *tags, rules.allow, rules.payer)
        router = self._routers.pop(name, None) or Router(settings, endpoint=endpoint, rules=rules)
        self._routers[name] = router
        if len(self._routers) > MOST_ROUTERS:
            del self._routers[next(iter(self._routers))]
        return router


@dataclass(slots=True)
class Context:
    settings: Settings
    store: Store
    redis: Redis
    clock: Callable[[], float]
    blobs: Blobs = field(default_factory=Blobs)
    deleted_files: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a file was deleted whose content is still to be removed."""
    metrics: Metrics = field(default_factory=Metrics)
    keyring: Keyring = field(default_factory=Keyring)
    rejected_keys: RejectedKeys = field(default_factory=RejectedKeys)
    rooms: Backlogs = field(default_factory=Backlogs)
    headroom: Headroom = field(default_factory=lambda: Headroom(READ_BYTES))
    """For pages of answers being read."""
    untaken: DeliveryRoom = field(default_factory=lambda: DeliveryRoom(*ON_DISK, always_one=True))
    untaken_in_memory: DeliveryRoom = field(default_factory=lambda: DeliveryRoom(*IN_MEMORY, always_one=False))
    """For those that were read and are not taken yet."""
    readiness: Readiness = field(default_factory=Readiness)
    writer: str = field(default_factory=lambda: new_id("api"))
    """The name of this process in counters and batch leases."""
    fill_soon: Callable[[], None] = lambda: None
    """Called when a batch was accepted: its lines are read at once instead of at the next poll."""
    rules: TenantRules = field(default_factory=TenantRules)
    schemas: SchemaTurns = field(default_factory=SchemaTurns)
    waiters: Waiters = field(init=False)

    def __post_init__(self) -> None:
        self.waiters = Waiters(self.store)

    async def router(self, tenant: str, endpoint: Endpoint) -> Router:
        """The router for requests of a tenant. Raises StoreError."""
        rules = await self.rules.of(self.store, tenant)
        return self.rules.router(self.settings, rules, endpoint)


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Api = Annotated[Context, Depends(context_of)]
