"""Connections to the ledger: SQLite or PostgreSQL, for reading or writing, with readable errors."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Executable, Row, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from understudy.models.config.private_files import make_private, touch_private
from understudy.models.config.service_urls import POSTGRESQL_FORM, BadAddress, postgresql_url
from understudy.models.store.database.error_translation import meaning_of
from understudy.models.store.database.sqlite_lock import WriteLock
from understudy.models.store.errors import StoreBusy, StoreConflict, StoreMisplaced, StoreUnavailable, folder_reason
from understudy.models.store.sql import BURDENED

SQLITE_TIMEOUT_S = 5.0
CHECKPOINT_S = 0.5
"""Longer reads keep the write-ahead log until the next checkpoint; writers wait in the meantime."""

SQLITE_READERS = 4
POSTGRESQL_CONNECTIONS = 10
POSTGRESQL_TIMEOUT_S = 10
POSTGRESQL_IDLE_S = 10
POSTGRESQL_LOCK_S = 5

TCP_DEAD_AFTER_S = 20
"""A peer that acknowledges nothing for this long is considered gone: the operating system would wait a quarter of an
hour."""

CONNECTING = {
    "prepare_threshold": None,
    "connect_timeout": POSTGRESQL_TIMEOUT_S,
    "tcp_user_timeout": TCP_DEAD_AFTER_S * 1000,
    **{"keepalives_idle": TCP_DEAD_AFTER_S // 2, "keepalives_interval": 5, "keepalives_count": 2},
}
"""Connection options, unless the address sets them."""

Given = Mapping[str, Any] | None
"""The values of a statement's parameters."""


class Database:
    """`read` and `write` give a connection inside a transaction; `write` commits when its block ends."""

    def __init__(
        self, dialect: str, place: str, readers: AsyncEngine, writers: AsyncEngine, turns: WriteLock | None = None
    ) -> None:
        """`place` is for people and contains no password."""
        self.dialect = dialect
        self.place = place
        self._readers = readers
        self._writers = writers
        self._turns = turns

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        with self._plain_errors():
            async with self._readers.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        turn: AbstractAsyncContextManager[None] = self._turns.turn() if self._turns else nullcontext()
        with self._plain_errors():
            async with turn, self._writers.begin() as connection:
                yield connection

    async def rows(self, statement: Executable, given: Given = None) -> Sequence[Row[Any]]:
        """All rows of a single read."""
        async with self.read() as connection:
            return (await connection.execute(statement, given)).all()

    async def row(self, statement: Executable, given: Given = None) -> Row[Any] | None:
        """The first row of a single read."""
        return next(iter(await self.rows(statement, given)), None)

    async def values(self, statement: Executable, given: Given = None) -> list[Any]:
        """The first column of a single read."""
        return [row[0] for row in await self.rows(statement, given)]

    async def value(self, statement: Executable, given: Given = None) -> Any:
        """The first column of the first row of a single read; None without a row."""
        return next(iter(await self.values(statement, given)), None)

    async def change(self, statement: Executable, given: Given = None) -> int:
        """Run a single write in a transaction of its own; returns how many rows it wrote."""
        async with self.write() as connection:
            done = await connection.execute(statement, given)
            return len(done.all()) if done.returns_rows else done.rowcount

    async def change_slices(self, statement: Executable, given: Given = None) -> int:
        """Repeat a write of limited size, each time in a transaction of its own, until it finds no more rows; returns
        how many it wrote."""
        changed = 0
        while slice_ := await self.change(statement, given):
            changed += slice_
        return changed

    async def empty_journal(self) -> bool:
        """SQLite only: remove deleted content from the write-ahead log, too. False: a reader still needs it, try
        again later. What a PostgreSQL server keeps is outside our control."""
        if self._turns is None:
            return True
        with self._plain_errors():
            async with self._turns.turn(), self._writers.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                await driver.execute(f"PRAGMA busy_timeout = {CHECKPOINT_S * 1000:.0f}")
                try:
                    [(busy, *_)] = await driver.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    await driver.execute(f"PRAGMA busy_timeout = {SQLITE_TIMEOUT_S * 1000:.0f}")
                return not busy

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writers.dispose()
        if self._turns:
            self._turns.close()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout:
            raise StoreBusy(f"every connection to {self.place} is in use; try again") from None
        except IntegrityError as error:
            raise StoreConflict(f"the ledger at {self.place} already has this row") from error
        except DBAPIError as error:
            raise meaning_of(error, self.place, self._readers.url.password) from None
        except OSError as error:
            raise StoreUnavailable(f"the database at {self.place} cannot be reached: {error.strerror}") from None


def open_sqlite(file: Path, clock: Callable[[], float]) -> Database:
    """Readers never wait for the writer (WAL); one connection writes, taking turns with other processes."""
    try:
        make_private(file.parent)
        touch_private(file)  # SQLite gives its auxiliary files the same permissions
        turns = WriteLock(file, SQLITE_TIMEOUT_S)
    except OSError as error:
        reason = folder_reason(error)
        raise StoreMisplaced(
            f"the data folder {file.parent} cannot be used ({reason}); name another with --data"
        ) from None
    url = URL.create("sqlite+aiosqlite", database=str(file))
    readers = create_async_engine(url, hide_parameters=True, pool_size=SQLITE_READERS, max_overflow=0)
    writers = create_async_engine(url, hide_parameters=True, pool_size=1, max_overflow=0)
    _prepare_sqlite(readers, clock, begin="BEGIN DEFERRED", settings=["query_only = ON"])
    durable = [
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",
    ]  # the first statement, on new files only
    durable.append("secure_delete = ON")  # not every build of SQLite does this by default
    _prepare_sqlite(writers, clock, begin="BEGIN IMMEDIATE", settings=durable)
    return Database("sqlite", str(file), readers, writers, turns)


def _prepare_sqlite(engine: AsyncEngine, clock: Callable[[], float], begin: str, settings: list[str]) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.create_function("ledger_now", 0, clock)
        cursor = connection.cursor()
        for setting in [f"busy_timeout = {SQLITE_TIMEOUT_S * 1000:.0f}", *settings]:
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "invalidate")
    def on_cancel(connection: Any, _record: object, _error: object) -> None:
        # Closing alone would keep the write lock until the cancelled statement is garbage collected.
        connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def open_postgresql(address: str) -> Database:
    """Prepared statements are off: they would break behind pgbouncer in transaction mode."""
    url = _postgresql_url(address)
    try:
        engine = create_async_engine(
            url,
            hide_parameters=True,
            pool_size=POSTGRESQL_CONNECTIONS,
            max_overflow=POSTGRESQL_CONNECTIONS,
            pool_timeout=POSTGRESQL_TIMEOUT_S,
            pool_pre_ping=True,
            connect_args={name: value for name, value in CONNECTING.items() if name not in url.query},
        )
    except ArgumentError:  # contradictory hosts and ports
        raise StoreMisplaced(f"DATABASE_URL cannot be parsed; {POSTGRESQL_FORM}") from None
    _prepare_postgresql(engine)
    return Database("postgresql", _place(url), engine, engine)


def place_of(address: str) -> str:
    """The location of a PostgreSQL address, without user, password and options. Raises the errors of opening it."""
    return _place(_postgresql_url(address))


def _place(url: URL) -> str:
    database = f"/{url.database}" if url.database else ""
    hosts = url.query.get("host")
    if isinstance(hosts, tuple):
        return ",".join(hosts) + database
    return f"{url.host or hosts or 'localhost'}:{url.port or url.query.get('port') or 5432}{database}"


def _prepare_postgresql(engine: AsyncEngine) -> None:
    """No process waits forever for one that was suspended mid-transaction: the holder's locks expire, and waiters
    time out first and retry. Set by statements on the connection, because pgbouncer rejects startup options."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{POSTGRESQL_IDLE_S}s'")
        cursor.execute(f"SET lock_timeout = '{POSTGRESQL_LOCK_S}s'")
        cursor.close()
        connection.commit()  # a rollback would revert the settings

    @event.listens_for(engine.sync_engine, "checkin")
    def on_checkin(_connection: Any, record: Any) -> None:
        if record.info.pop(BURDENED, False):
            record.invalidate()


def _postgresql_url(address: str) -> URL:
    try:
        return make_url(postgresql_url(address)).set(drivername="postgresql+psycopg")
    except BadAddress as error:
        raise StoreMisplaced(f"DATABASE_URL {error}") from None
    except (ArgumentError, ValueError):
        raise StoreMisplaced(f"DATABASE_URL cannot be parsed; {POSTGRESQL_FORM}") from None
