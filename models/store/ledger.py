"""Shared foundation of all store areas."""

from collections.abc import Callable

import orjson
from sqlalchemy import bindparam, select

from understudy.models.routing.chain import Chain
from understudy.models.store.engine import Database
from understudy.models.store.errors import StoreError
from understudy.models.store.sql import NOW, chain

CHAINS_KEPT = 4096

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

    async def now(self) -> float:
        """Unix seconds by the ledger's clock, which leases and times are compared with."""
        if self.database.dialect == "sqlite":
            return self._clock()
        async with self.database.read() as connection:
            return float((await connection.execute(CLOCK)).scalar_one())

    async def get_chain(self, chain_id: str) -> Chain:
        """Raises StoreError if no job was ever accepted with it. Cached: a chain never changes."""
        if chain_id not in self._chains:
            async with self.database.read() as connection:
                document = (await connection.execute(CHAIN_DOCUMENT, {"chain_id": chain_id})).scalar()
            if document is None:
                raise StoreError(f"the ledger has no chain {chain_id}; was its database replaced?")
            self._remember(chain_id, Chain.model_validate(orjson.loads(document)))
        return self._chains[chain_id]

    def _remember(self, chain_id: str, document: Chain) -> None:
        if len(self._chains) >= CHAINS_KEPT:
            self._chains.clear()
        self._chains[chain_id] = document


class Area:
    """The store's methods for one subject. All areas share the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._db = ledger.database
