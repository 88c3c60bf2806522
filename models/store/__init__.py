"""The ledger: every SQL statement of the project, each named, for SQLite and PostgreSQL.

A `Store` consists of areas. Each is a class in a module of its own, or in `area.py` of a folder. It is loaded on first
use: its statements are built when its module is imported.

| area | about |
|---|---|
| `intake` | accepting batches and single jobs, each request once |
| `ingest` | batches that are accepted first and filled from a file afterwards |
| `jobs` | single jobs and their provider calls: looked up, listed, cancelled, run again |
| `batches` | whole batches: shown, paused, cancelled, ended |
| `runs` | repeatable runs: which process owns one, its lines, the job behind each line |
| `planning` | what the planner reads, and what it reports on waiting batches |
| `claims` | what workers hold: leases, the guarded start, the fenced settle, rescue |
| `canary` | whether a batch is worth continuing |
| `credentials` | disabled credentials, until they are enabled again |
| `budgets` | what may be spent, and what was |
| `webhooks` | endpoints, secrets and deliveries; `webhooks/outbox.py` writes what is to be delivered |
| `files` | uploads, and the files that batches make |
| `tenants` | keys, limits, usage |
| `retention` | deletion of what is old, refused or delivered |
| `audit` | who did what |
| `metrics` | numbers for metrics |

All methods raise the errors of `models.store.errors`.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.models.store.database import schema
from understudy.models.store.database.engine import Database, open_postgresql, open_sqlite
from understudy.models.store.errors import (
    StoreBusy,
    StoreConflict,
    StoreDefect,
    StoreError,
    StoreFull,
    StoreMisplaced,
    StoreOutage,
    StoreRefused,
    StoreUnavailable,
)
from understudy.models.store.ledger import Ledger

if TYPE_CHECKING:
    from understudy.models.routing.chain import Chain
    from understudy.models.store.audit import Audit
    from understudy.models.store.batches.area import Batches
    from understudy.models.store.budgets import Budgets
    from understudy.models.store.canary import Canary
    from understudy.models.store.claims.area import Claims
    from understudy.models.store.credentials import Credentials
    from understudy.models.store.files import Files
    from understudy.models.store.ingest import Ingest
    from understudy.models.store.intake import Intake
    from understudy.models.store.jobs.area import Jobs
    from understudy.models.store.metrics import Metrics
    from understudy.models.store.planning import Planning
    from understudy.models.store.retention.area import Retention
    from understudy.models.store.runs.area import Runs
    from understudy.models.store.tenants.area import Tenants
    from understudy.models.store.webhooks.endpoints import Webhooks

__all__ = [
    "Store",
    "StoreBusy",
    "StoreConflict",
    "StoreDefect",
    "StoreError",
    "StoreFull",
    "StoreMisplaced",
    "StoreOutage",
    "StoreRefused",
    "StoreUnavailable",
    "open_store",
]

LEDGER_FILE = "ledger.db"


class Store:
    """The ledger as its users see it: areas over one database and one clock."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._ledger = Ledger(database, clock)

    @cached_property
    def intake(self) -> "Intake":
        from understudy.models.store.intake import Intake

        return Intake(self._ledger)

    @cached_property
    def ingest(self) -> "Ingest":
        from understudy.models.store.ingest import Ingest

        return Ingest(self._ledger)

    @cached_property
    def jobs(self) -> "Jobs":
        from understudy.models.store.jobs.area import Jobs

        return Jobs(self._ledger)

    @cached_property
    def batches(self) -> "Batches":
        from understudy.models.store.batches.area import Batches

        return Batches(self._ledger)

    @cached_property
    def runs(self) -> "Runs":
        from understudy.models.store.runs.area import Runs

        return Runs(self._ledger)

    @cached_property
    def planning(self) -> "Planning":
        from understudy.models.store.planning import Planning

        return Planning(self._ledger)

    @cached_property
    def claims(self) -> "Claims":
        from understudy.models.store.claims.area import Claims

        return Claims(self._ledger)

    @cached_property
    def canary(self) -> "Canary":
        from understudy.models.store.canary import Canary

        return Canary(self._ledger)

    @cached_property
    def credentials(self) -> "Credentials":
        from understudy.models.store.credentials import Credentials

        return Credentials(self._ledger)

    @cached_property
    def budgets(self) -> "Budgets":
        from understudy.models.store.budgets import Budgets

        return Budgets(self._ledger)

    @cached_property
    def webhooks(self) -> "Webhooks":
        from understudy.models.store.webhooks.endpoints import Webhooks

        return Webhooks(self._ledger)

    @cached_property
    def files(self) -> "Files":
        from understudy.models.store.files import Files

        return Files(self._ledger)

    @cached_property
    def tenants(self) -> "Tenants":
        from understudy.models.store.tenants.area import Tenants

        return Tenants(self._ledger)

    @cached_property
    def retention(self) -> "Retention":
        from understudy.models.store.retention.area import Retention

        return Retention(self._ledger)

    @cached_property
    def audit(self) -> "Audit":
        from understudy.models.store.audit import Audit

        return Audit(self._ledger)

    @cached_property
    def metrics(self) -> "Metrics":
        from understudy.models.store.metrics import Metrics

        return Metrics(self._ledger)

    async def now(self) -> float:
        """Unix seconds by the ledger's clock, which leases and times are compared with."""
        return await self._ledger.now()

    async def get_chain(self, chain_id: str) -> "Chain":
        """Raises StoreError if no job was ever accepted with it. Cached: a chain never changes."""
        return await self._ledger.get_chain(chain_id)

    @property
    def place(self) -> str:
        """The location of the ledger, for people; contains no password."""
        return self._db.place

    @property
    def dialect(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._db.dialect

    async def migrate(self) -> None:
        """Bring the schema up to date; a no-op if it is."""
        async with self._db.write() as connection:
            await connection.run_sync(schema.upgrade)

    async def schema_is_current(self) -> bool:
        async with self._db.read() as connection:
            return await connection.run_sync(schema.is_current)

    async def schema_is_newer(self) -> bool:
        """Whether a newer version of Understudy has migrated it."""
        async with self._db.read() as connection:
            return await connection.run_sync(schema.is_newer)


@asynccontextmanager
async def open_store(
    url: str | None, data: Path, clock: Callable[[], float] = time.time, *, migrate: bool = False
) -> AsyncIterator[Store]:
    """Open the ledger at a PostgreSQL address, or in the data folder if `url` is None.

    A SQLite ledger is migrated automatically. A PostgreSQL one only with `migrate`: workers of another version may be
    using it. Raises StoreUnavailable.
    """
    database: Database = open_sqlite(data / LEDGER_FILE, clock) if url is None else open_postgresql(url)
    try:
        store = Store(database, clock)
        if not await store.schema_is_current():
            if await store.schema_is_newer():
                raise StoreUnavailable(
                    f"the database at {database.place} was written by a newer version of Understudy; "
                    f"use that version, or name another {'data folder' if url is None else 'database'}"
                )
            if url is not None and not migrate:
                raise StoreUnavailable(
                    f"the database at {database.place} has an outdated schema; run understudy migrate"
                )
            await store.migrate()
        yield store
    finally:
        await database.close()
