"""The ledger: every SQL statement of the project, each named, for SQLite and PostgreSQL.

| module | about |
|---|---|
| intake | accepting batches and single jobs |
| filling | batches that are accepted first and filled from a file afterwards |
| lanes, planning | what the planner reads |
| claims | leases, the guarded start, the fenced settle |
| rescue | the jobs of workers that died |
| runs | runs: whether the process of one lives, its lines and what came of them |
| comparing | the lines of a run beside what was asked for it before |
| rerunning | the jobs that stand for them, for a retry |
| upkeep | ends that no worker brings about, credentials |
| holds | batches that wait for a person, and go on again |
| canary | whether a batch is worth going on |
| pruning, retention | deletion in slices; what is too old to be kept |
| forgetting | what was delivered, and the removal of its content |
| views, history | what people and callers read |
| jobs | single jobs of callers over HTTP, lists of jobs |
| gauges | what metrics show |
| announcing, deliveries, webhooks | telling of what ended: the rows, the tries, what administrators see |
| waiting | which of many have ended |
| access, usage | keys and tenants; what tenants use |
| auditing | who did what |

All methods raise the errors of `models.store.errors`.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from understudy.models.store import schema
from understudy.models.store.access import Access
from understudy.models.store.audit import Auditing
from understudy.models.store.batches.budgets import Budgets
from understudy.models.store.batches.canary import Canary
from understudy.models.store.batches.ingest import Filling
from understudy.models.store.batches.lifecycle import Upkeep
from understudy.models.store.batches.pauses import Holds
from understudy.models.store.batches.reruns import Rerunning
from understudy.models.store.engine import Database, open_postgresql, open_sqlite
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
from understudy.models.store.gauges import Gauges
from understudy.models.store.jobs.claims import Claims
from understudy.models.store.jobs.ended import EndedJobs
from understudy.models.store.jobs.history import History
from understudy.models.store.jobs.intake import Intake
from understudy.models.store.jobs.planning import Planning
from understudy.models.store.jobs.rescue import Rescue
from understudy.models.store.jobs.submission import Jobs
from understudy.models.store.retention.delivered import Forgetting
from understudy.models.store.retention.expiry import Retention
from understudy.models.store.retention.files import Files
from understudy.models.store.retention.prune import Pruning
from understudy.models.store.usage import Usage
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


class Store(
    Jobs,
    Filling,
    Intake,
    Planning,
    Claims,
    Rescue,
    Upkeep,
    Rerunning,
    Holds,
    Canary,
    Pruning,
    Retention,
    Forgetting,
    History,
    Gauges,
    Access,
    Auditing,
    Usage,
    Budgets,
    Webhooks,
    Files,
    EndedJobs,
):
    """The ledger as its users see it."""

    @property
    def place(self) -> str:
        """Where the ledger is, for people; holds no password."""
        return self._db.place

    @property
    def dialect(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._db.dialect

    async def migrate(self) -> None:
        """Bring the schema up to date; does nothing when it is."""
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
    """The ledger at a PostgreSQL address, or in the data folder when `url` is None.

    A SQLite ledger is migrated at once. A PostgreSQL one only with `migrate`: workers of another version may be at
    work on it. Raises StoreUnavailable.
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
                    f"the database at {database.place} does not have this version's tables; run understudy migrate"
                )
            await store.migrate()
        yield store
    finally:
        await database.close()
