"""The context shared by all requests, created when the server starts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from redis.asyncio import Redis

from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.memory_room import Headroom
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.route import Router
from understudy.models.schemas.json_schema import SchemaTurns
from understudy.models.store import Store
from understudy.producer.api.access.backlog import Backlogs
from understudy.producer.api.access.keyring import Keyring
from understudy.producer.api.access.refused_keys import RefusedKeys
from understudy.producer.api.access.tenant_rules import TenantRules
from understudy.producer.api.files.blobs import Blobs
from understudy.producer.api.files.delivery_room import IN_MEMORY, ON_DISK, DeliveryRoom
from understudy.producer.api.jobs.waiters import Waiters
from understudy.producer.api.monitoring.metrics import Metrics
from understudy.producer.api.monitoring.readiness import Readiness

READ_BYTES = 16 * 1024 * 1024
"""Bytes of answers that are read at the same time for all callers, or one answer if that is more. They take about four
times the memory."""


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
    refused_keys: RefusedKeys = field(default_factory=RefusedKeys)
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
