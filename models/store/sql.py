"""Building blocks of statements: tables, the ledger's clock, named conditions, rows as parameters."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Literal

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    FromClause,
    Row,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlalchemy.types import TypeDecorator, TypeEngine

from understudy.models.ids import id_at
from understudy.models.state import BatchState, JobState
from understudy.models.tables import Job

_tables = Job.metadata.tables
chain, batch, job, job_input = (_tables[name] for name in ("chain", "batch", "job", "job_input"))
result, attempt, tally = (_tables[name] for name in ("result", "attempt", "tally"))
worker, credential = _tables["worker"], _tables["credential"]
file, idempotency, audit = _tables["file"], _tables["idempotency"], _tables["audit"]
provider_tally, budget_grant = _tables["provider_tally"], _tables["budget_grant"]
tenant, tenant_tally, api_key = _tables["tenant"], _tables["tenant_tally"], _tables["api_key"]
webhook_secret, webhook_endpoint = _tables["webhook_secret"], _tables["webhook_endpoint"]
webhook_delivery = _tables["webhook_delivery"]
run, run_line = _tables["run"], _tables["run_line"]


class ledger_now(FunctionElement[float]):
    """Unix seconds by the ledger's clock: PostgreSQL's own, or the injected one on SQLite."""

    inherit_cache = True
    type = Double()


@compiles(ledger_now, "postgresql")
def _clock_of_postgresql(_element: ledger_now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(ledger_now, "sqlite")
def _clock_of_sqlite(_element: ledger_now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "ledger_now()"


# In a subquery the clock is read once per statement, and an index can be searched with it.
NOW = select(ledger_now()).scalar_subquery()

# Literal, not bound: a partial index on states is only used if the state is in the text.
QUEUED = job.c.state == literal_column("'queued'")
RUNNING = job.c.state == literal_column("'running'")

GOES_ON = and_(
    batch.c.state == str(BatchState.IN_PROGRESS),
    batch.c.paused.is_(None),
    or_(batch.c.runs_until.is_(None), batch.c.runs_until > NOW),
)
"""The jobs of a batch may start: it is accepted and not paused, and if it belongs to a `run`, that process is alive."""


def hidden(state: JobState) -> ColumnElement[bool]:
    """state = X, written so that the planner cannot pick a partial index: for statements that find their rows by id.

    Both planners would otherwise search all running, or all queued, jobs of the ledger for each id.
    """
    return func.coalesce(job.c.state, "") == str(state)


class JsonRows:
    """Rows for a statement to join with, in one parameter: JSON, which both databases parse faster than a driver can
    write arrays."""

    def __init__(self, dialect: str, columns: Mapping[str, TypeEngine[Any]]) -> None:
        self.source: FromClause
        document = bindparam("given", type_=Text)
        if dialect == "postgresql":
            names = [column(name, type_) for name, type_ in columns.items()]
            records = func.json_to_recordset(cast(document, JSON)).table_valued(*names, name="given")
            self.source = records.render_derived(with_types=True)
        else:
            each = func.json_each(document).table_valued("value", name="each")
            fields = [
                func.json_extract(each.c.value, literal_column(f"'$.{name}'"), type_=type_).label(name)
                for name, type_ in columns.items()
            ]
            self.source = select(*fields).select_from(each).subquery("given")

    @staticmethod
    def bind(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        return {"given": orjson.dumps(rows).decode()}


upsert = postgresql.insert
"""INSERT with ON CONFLICT, which SQLite writes in the same way."""


def replacing(new: postgresql.Insert, names: Iterable[str]) -> postgresql.Insert:
    """Insert a row, or replace these columns of the row that exists."""
    values = {name: new.excluded[name] for name in names}
    return new.on_conflict_do_update(index_elements=list(new.table.primary_key), set_=values)


def columns_of(record: Any, table: Table) -> dict[str, Any]:
    """The fields of a record that are columns of a table."""
    return {name: getattr(record, name) for name in shared_names(record, table)}


def shared_names(record: Any, table: Table) -> list[str]:
    """The fields of a record, or of its class, that are columns of a table."""
    columns = _column_names(table)
    return [name for name in record.__dataclass_fields__ if name in columns]


@cache
def _column_names(table: Table) -> frozenset[str]:
    return frozenset(table.columns.keys())


def _default(of: Column[Any]) -> Any:
    default = of.default.arg if isinstance(of.default, ScalarElementColumnDefault) else None
    return default.value if isinstance(default, Enum) else default


class BulkInsert:
    """INSERT of many rows; columns that a row does not have get their default.

    `conflict`: an existing row fails, is ignored, or has the numbers in `adds` added to it. With `returning`, the ids
    of the rows actually inserted are returned.
    """

    def __init__(
        self,
        table: Table,
        conflict: Literal["fails", "ignored", "added"] = "fails",
        adds: Sequence[str] = (),
        returning: str | None = None,
    ) -> None:
        self._table = table
        self._conflict = conflict
        self._adds = adds
        self._returning = returning
        self._defaults = {each.name: _default(each) for each in table.columns}
        self._as_source = cache(self._from_source)
        self._as_values = self._with_conflict(upsert(table))

    async def run(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> Sequence[Row[Any]]:
        if not rows:
            return []
        rows = [{**self._defaults, **row} for row in rows]
        dialect = connection.dialect.name
        if dialect == "sqlite" and self._returning is None:
            await connection.execute(self._as_values, rows)
            return []
        if self._returning is None:
            rows = await self._without_large(connection, rows)
        if not rows:
            return []
        statement, given = self._as_source(dialect)
        done = await connection.execute(statement, given.bind(rows))
        return done.all() if self._returning else []

    async def _without_large(
        self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """Insert large rows one by one: in one JSON text they would be in memory three times. Returns the rest."""
        large = [row for row in rows if _weight(row) > LARGE_ROW]
        for row in large:
            await connection.execute(self._as_values, row)
            if _weight(row) > BURDEN:
                await burden(connection)
        return [row for row in rows if _weight(row) <= LARGE_ROW] if large else rows

    def _from_source(self, dialect: str) -> tuple[Any, JsonRows]:
        given = JsonRows(dialect, {each.name: plain_type(each) for each in self._table.columns})
        # SQLite cannot distinguish ON CONFLICT from a join's ON unless the SELECT has a WHERE.
        rows = select(*given.source.columns).where(true())
        return self._with_conflict(upsert(self._table).from_select(list(self._defaults), rows)), given

    def _with_conflict(self, new: postgresql.Insert) -> Any:
        if self._conflict == "ignored":
            new = new.on_conflict_do_nothing()
        if self._conflict == "added":
            added = {name: self._table.c[name] + new.excluded[name] for name in self._adds}
            new = new.on_conflict_do_update(index_elements=list(self._table.primary_key.columns), set_=added)
        return new.returning(self._table.c[self._returning]) if self._returning else new


def _weight(row: Mapping[str, Any]) -> int:
    return max((len(value) for value in row.values() if isinstance(value, str)), default=0)


async def burden(connection: AsyncConnection) -> None:
    """Close the connection after its transaction: libpq keeps buffers as large as the largest row they held for the
    lifetime of the connection."""
    raw = await connection.get_raw_connection()
    raw.info[BURDENED] = connection.dialect.name == "postgresql"


def plain_type(of: Column[Any]) -> TypeEngine[Any]:
    kinds: dict[type, TypeEngine[Any]] = {str: Text(), int: BigInteger(), float: Double(), bool: Boolean()}
    plain = of.type.impl_instance if isinstance(of.type, TypeDecorator) else of.type
    return kinds[plain.python_type]


LARGE_ROW, BURDEN = 1024 * 1024, 8 * 1024 * 1024
BURDENED = "burdened"

SLICE = 2_000
"""Rows that one transaction changes or deletes, so that no lock is held for long."""

LARGEST_INT = 2**31 - 1


def whole(number: int) -> int:
    """Clamp a number to the range of its column: a provider's absurd usage must not fail the other rows."""
    return max(0, min(int(number), LARGEST_INT))


def clean(words: str | None) -> str | None:
    """External text without what PostgreSQL cannot store: NUL and lone surrogates."""
    return words and words.replace("\0", "").encode(errors="replace").decode()


CLOCKS_APART_S = 86_400.0
"""Ids carry the clock of their creator, rows the ledger's clock: they differ by at most this, if clocks are
synchronized."""


def made_since(ids: Column[Any], prefix: str, time_s: float) -> ColumnElement[bool]:
    """The ids of rows from a time on, and some earlier ones: where a search by id can begin."""
    return ids >= id_at(prefix, time_s - CLOCKS_APART_S)


def made_until(ids: Column[Any], prefix: str, time_s: float) -> ColumnElement[bool]:
    """The ids of rows before a time, and some later ones: where it can end."""
    return ids < id_at(prefix, time_s + CLOCKS_APART_S)
