"""What the statements are made of: the tables, the ledger's clock, conditions with names, rows as parameters."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Double,
    FromClause,
    Row,
    Table,
    Text,
    and_,
    bindparam,
    column,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from models.tables import Job

_tables = Job.metadata.tables
chain, batch, job, job_input = (_tables[name] for name in ("chain", "batch", "job", "job_input"))
result, attempt, tally, lane = (_tables[name] for name in ("result", "attempt", "tally", "lane"))
worker, credential = _tables["worker"], _tables["credential"]


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


# As a subquery the clock is read once per statement, and an index can be searched with it.
NOW = select(ledger_now()).scalar_subquery()

# Written out, not bound: an index that holds only some states is used only when the state is in the text.
QUEUED = job.c.state == literal_column("'queued'")
RUNNING = job.c.state == literal_column("'running'")


class Given:
    """Rows that a statement joins with, in parameters of fixed number: arrays on PostgreSQL, JSON on SQLite."""

    def __init__(self, dialect: str, columns: Mapping[str, TypeEngine[Any]]) -> None:
        self._dialect = dialect
        self._columns = columns
        self.source: FromClause
        if dialect == "postgresql":
            arrays = [bindparam(f"given_{name}", type_=ARRAY(type_)) for name, type_ in columns.items()]
            names = [column(name, type_) for name, type_ in columns.items()]
            self.source = func.unnest(*arrays).table_valued(*names, name="given").render_derived()
        else:
            each = func.json_each(bindparam("given", type_=Text)).table_valued("value", name="each")
            fields = [
                func.json_extract(each.c.value, literal_column(f"'$[{place}]'"), type_=type_).label(name)
                for place, (name, type_) in enumerate(columns.items())
            ]
            self.source = select(*fields).select_from(each).subquery("given")

    def bind(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        if self._dialect == "postgresql":
            by_column = zip(self._columns.items(), zip(*rows, strict=True), strict=True)
            return {f"given_{name}": _array(type_, values) for (name, type_), values in by_column}
        return {"given": orjson.dumps(rows).decode()}


def _array(of: TypeEngine[Any], values: Sequence[Any]) -> list[Any]:
    """psycopg refuses a list that mixes whole numbers with others."""
    if isinstance(of, Double):
        return [None if value is None else float(value) for value in values]
    return list(values)


class BulkInsert:
    """INSERT of many rows. `conflict`: a row that exists fails, is ignored, or has the numbers of `adds` added to it.

    With `returning`, the ids of the rows that were really inserted come back.
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
        self._columns = list(table.columns.keys())
        self._as_source = cache(self._from_source)
        self._as_values = self._with_conflict(sqlite.insert(table))

    async def run(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> Sequence[Row[Any]]:
        if not rows:
            return []
        dialect = connection.dialect.name
        if dialect == "sqlite" and self._returning is None:
            await connection.execute(self._as_values, rows)
            return []
        statement, given = self._as_source(dialect)
        done = await connection.execute(statement, given.bind([[row[name] for name in self._columns] for row in rows]))
        return done.all() if self._returning else []

    def _from_source(self, dialect: str) -> tuple[Any, Given]:
        given = Given(dialect, {each.name: array_type(each) for each in self._table.columns})
        insert = postgresql.insert(self._table) if dialect == "postgresql" else sqlite.insert(self._table)
        # SQLite cannot tell ON CONFLICT from a join's ON unless the SELECT has a WHERE.
        rows = select(*given.source.columns).where(true())
        return self._with_conflict(insert.from_select(self._columns, rows)), given

    def _with_conflict(self, insert: Any) -> Any:
        if self._conflict == "ignored":
            insert = insert.on_conflict_do_nothing()
        if self._conflict == "added":
            added = {name: self._table.c[name] + insert.excluded[name] for name in self._adds}
            insert = insert.on_conflict_do_update(index_elements=list(self._table.primary_key.columns), set_=added)
        return insert.returning(self._table.c[self._returning]) if self._returning else insert


def array_type(of: Column[Any]) -> TypeEngine[Any]:
    kinds: dict[type, TypeEngine[Any]] = {str: Text(), int: BigInteger(), float: Double(), bool: Boolean()}
    plain = of.type.impl_instance if isinstance(of.type, TypeDecorator) else of.type
    return kinds[plain.python_type]


def in_lane() -> Any:
    """The job belongs to the lane whose columns are bound."""
    return and_(*(job.c[each.name] == bindparam(each.name) for each in lane.columns))


LARGEST_INT = 2**31 - 1


def whole(number: int) -> int:
    """As much of a number as its column takes: a provider's absurd usage must not spoil the rows beside it."""
    return max(0, min(int(number), LARGEST_INT))


def clean(words: str | None) -> str | None:
    """Text from outside without what PostgreSQL refuses to store: NUL and lone surrogates."""
    return words and words.replace("\0", "").encode(errors="replace").decode()
