"""The ledger: every SQL statement of the project, each named, for SQLite and PostgreSQL.

A `Store` consists of areas. Each is one class in the module of its name, here or in `work/`, and loaded on first
use: its statements are built when its module is imported.

| area | about |
|---|---|
| `intake` | accepting batches and single jobs, each request once |
| `filling` | batches that are accepted first and filled from a file afterwards |
| `planning` | what the planner reads, and what it reports on waiting batches |
| `claims` | the guarded start of jobs, and their fenced settle |
| `workers` | leases, and the jobs of workers that stopped or died |
| `jobs` | jobs and their provider calls: looked up, listed, cancelled |
| `batches` | batches with their sums: looked up, listed |
| `batch_lifecycle` | batches paused, resumed, cancelled, expired, ended |
| `canary` | whether a batch is worth continuing |
| `outputs` | results of ended jobs, row by row |
| `runs` | repeatable runs: which process owns one, its lines, the job behind each line |
| `comparison` | today's lines of a run against those previously sent |
| `reruns` | jobs to run again, and unsent jobs that get another chain |
| `budgets` | what may be spent, and what was |
| `credentials` | disabled credentials, until they are enabled again |
| `files` | uploads, and the files that batches make |
| `api_keys` | keys of the HTTP API |
| `tenants` | their limits, rules and usage |
| `webhooks` | endpoints, secrets, the log of deliveries; `outbox.py` writes what is to be delivered |
| `deliveries` | webhooks that are due: claimed, and settled after an attempt |
| `content` | prompts and answers, deleted after delivery |
| `retention` | deletion of what is old or rejected |
| `audit` | who did what |
| `metrics` | numbers for metrics |

All methods raise the errors of `models.store.errors`.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.models.store.database import migrate
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
from understudy.models.store.ledger import Area, Ledger

if TYPE_CHECKING:
    from understudy.models.routing.chain import Chain
    from understudy.models.store.api_keys import ApiKeys
    from understudy.models.store.audit import Audit
    from understudy.models.store.budgets import Budgets
    from understudy.models.store.content import Content
    from understudy.models.store.credentials import Credentials
    from understudy.models.store.deliveries import Deliveries
    from understudy.models.store.files import Files
    from understudy.models.store.metrics import Metrics
    from understudy.models.store.retention import Retention
    from understudy.models.store.tenants import Tenants
    from understudy.models.store.webhooks import Webhooks
    from understudy.models.store.work.batch_lifecycle import BatchLifecycle
    from understudy.models.store.work.batches import Batches
    from understudy.models.store.work.canary import Canary
    from understudy.models.store.work.claims import Claims
    from understudy.models.store.work.comparison import Comparison
    from understudy.models.store.work.filling import Filling
    from understudy.models.store.work.intake import Intake
    from understudy.models.store.work.jobs import Jobs
    from understudy.models.store.work.outputs import Outputs
    from understudy.models.store.work.planning import Planning
    from understudy.models.store.work.reruns import Reruns
    from understudy.models.store.work.runs import Runs
    from understudy.models.store.work.workers import Workers

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

WORK = frozenset(
    "batch_lifecycle batches canary claims comparison filling intake jobs outputs planning reruns runs workers".split()
)
"""The areas in `work/`. Named, not looked for: a folder that an older version left behind would be found first."""


class Store:
    """The ledger as its users see it: areas over one database and one clock."""

    api_keys: "ApiKeys"
    audit: "Audit"
    budgets: "Budgets"
    content: "Content"
    credentials: "Credentials"
    deliveries: "Deliveries"
    files: "Files"
    metrics: "Metrics"
    retention: "Retention"
    tenants: "Tenants"
    webhooks: "Webhooks"
    batches: "Batches"
    canary: "Canary"
    claims: "Claims"
    comparison: "Comparison"
    filling: "Filling"
    intake: "Intake"
    jobs: "Jobs"
    batch_lifecycle: "BatchLifecycle"
    outputs: "Outputs"
    planning: "Planning"
    reruns: "Reruns"
    runs: "Runs"
    workers: "Workers"

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._ledger = Ledger(database, clock)

    if not TYPE_CHECKING:  # the annotations above say more

        def __getattr__(self, name: str) -> Area:
            """An area, loaded on first use."""
            if name not in Store.__annotations__:
                raise AttributeError(f"the store has no area {name}")
            folder = ".work" if name in WORK else ""
            area = getattr(import_module(f"{__name__}{folder}.{name}"), Store.__annotations__[name])(self._ledger)
            setattr(self, name, area)
            return area

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
            await connection.run_sync(migrate.upgrade)

    async def schema_is_current(self) -> bool:
        async with self._db.read() as connection:
            return await connection.run_sync(migrate.is_current)

    async def schema_is_newer(self) -> bool:
        """Whether a newer version of Understudy has migrated it."""
        async with self._db.read() as connection:
            return await connection.run_sync(migrate.is_newer)


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
