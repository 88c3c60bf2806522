"""The data rules of tenants, cached from the ledger, and routers that apply them."""

import time
from collections.abc import Callable, Hashable

from understudy.models.config.settings import Settings
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.data_rules import Rules
from understudy.models.routing.route import Router
from understudy.models.store import Store

KEPT_S = 5.0
MOST_ROUTERS = 100
"""Routers to cache, least recently used dropped first; each remembers thousands of chains."""


class TenantRules:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._read: dict[str, tuple[float, Rules]] = {}
        self._routers: dict[Hashable, Router] = {}

    async def of(self, store: Store, tenant: str) -> Rules:
        """The rules of a tenant, at most KEPT_S seconds old. Raises StoreError."""
        read_at, rules = self._read.get(tenant, (float("-inf"), None))
        if rules is None or self._monotonic() - read_at >= KEPT_S:
            rules = await store.tenants.rules(tenant)
            self._read[tenant] = (self._monotonic(), rules)
        return rules

    def router(self, settings: Settings, rules: Rules, endpoint: Endpoint) -> Router:
        """A router shared by all tenants with these rules."""
        tags = (tuple(sorted(each.items())) for each in (rules.require, rules.forbid))
        name = (endpoint, *tags, rules.allow, rules.payer)
        router = self._routers.pop(name, None) or Router(settings, endpoint=endpoint, rules=rules)
        self._routers[name] = router
        if len(self._routers) > MOST_ROUTERS:
            del self._routers[next(iter(self._routers))]
        return router
