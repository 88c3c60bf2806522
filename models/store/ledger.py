"""Shared foundation of all store areas."""

from collections.abc import Callable

import orjson
from sqlalchemy import bindparam, select

from understudy.models.routing.chain import Chain
from understudy.models.store.database.engine import Database
from understudy.models.store.errors import StoreError
from understudy.models.store.sql import NOW, chain

CHAINS_KEPT, CHAIN_BYTES_KEPT = 4096, 16 * 1024 * 1024
"""Callers write into the steps of their fallbacks what they like, up to a whole request."""

CLOCK = select(NOW)
"""The ledger's clock."""

CHAIN_DOCUMENT = select(chain.c.document).where(chain.c.id == bindparam("chain_id"))
"""A chain as it was accepted."""


class Ledger:
    """One database, the injected clock, and the cached chains."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database = database
        self._clock = clock
        self._chains: dict[str, Chain] = {}
        self._chain_bytes = 0

    async def now(self) -> float:
        """Unix seconds by the ledger's clock, which leases and times are compared with."""
        if self.database.dialect == "sqlite":
            return self._clock()
        return float(await self.database.value(CLOCK))

    async def get_chain(self, chain_id: str) -> Chain:
        """Raises StoreError if no job was ever accepted with it. Cached: a chain never changes."""
        known = self._chains.get(chain_id)
        if known is not None:
            return known
        document = await self.database.value(CHAIN_DOCUMENT, {"chain_id": chain_id})
        if document is None:
            raise StoreError(f"the ledger has no chain {chain_id}; was its database replaced?")
        found = Chain.model_validate(orjson.loads(document))
        self._remember(chain_id, found, len(document))
        return found

    def _remember(self, chain_id: str, found: Chain, size: int) -> None:
        if len(self._chains) >= CHAINS_KEPT or self._chain_bytes + size > CHAIN_BYTES_KEPT:
            self._chains.clear()
            self._chain_bytes = 0
        if size <= CHAIN_BYTES_KEPT:
            self._chains[chain_id] = found
            self._chain_bytes += size


class Area:
    """The store's methods for one subject. All areas share the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._db = ledger.database
