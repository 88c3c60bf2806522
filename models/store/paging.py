"""Pages bounded in bytes as well as in rows: row sizes are queried before the rows are read.

A page of a thousand answers may be a megabyte or fifty gigabytes.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Row, Select, bindparam, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from understudy.models.store.database.engine import Database
from understudy.models.store.sql import BURDEN, burden, job, result

PAGE = 1_000
PAGE_BYTES = 4 * 1024 * 1024
"""Bytes read at a time, or a single row if larger. It takes about four times as much memory."""


class octets(FunctionElement[int]):
    """Size of a text in UTF-8 bytes."""

    inherit_cache = True
    type = BigInteger()


@compiles(octets, "postgresql")
def _octets_of_postgresql(element: octets, compiler: SQLCompiler, **options: Any) -> str:
    return f"octet_length({compiler.process(element.clauses, **options)})"


@compiles(octets, "sqlite")
def _octets_of_sqlite(element: octets, compiler: SQLCompiler, **options: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **options)} AS BLOB))"


def size_of(*texts: ColumnElement[Any]) -> ColumnElement[int]:
    """Total bytes of some texts of a row."""
    none = literal_column("0", BigInteger())
    return sum((func.coalesce(octets(text), none) for text in texts), none)


_read_bytes = select(size_of(result.c.body, result.c.error)).where(result.c.job_id == job.c.id).correlate(job)
ANSWER_BYTES = func.coalesce(job.c.answer_bytes, _read_bytes.scalar_subquery(), literal_column("0", BigInteger()))
"""Size of a job's result, stored with the job so that it is known without reading the result."""


@dataclass(frozen=True, slots=True)
class Span:
    """The rows after one position up to another, and their size in bytes."""

    after: Any
    up_to: Any
    size: int


class Paged:
    """A statement read page by page, ordered by `key`; `size` is the size of a row."""

    def __init__(self, statement: Select[Any], key: Column[Any], size: ColumnElement[int], most: int = PAGE) -> None:
        """The statement has neither order nor limit. A page has at most `most` rows."""
        self._of = statement, key, size
        later = statement.where(key > bindparam("after", type_=key.type)).order_by(key)
        places = key.label("place"), size.label("size")
        self._sizes = later.with_only_columns(*places).limit(most)
        rows = self._sizes.subquery()
        self._whole = select(func.max(rows.c.place).label("place"), func.sum(rows.c.size).label("size"))
        self._rows = later.where(key <= bindparam("up_to", type_=key.type))

    def limit(self, most: int) -> "Paged":
        """The same with smaller pages."""
        return Paged(*self._of, most)

    async def span(self, connection: AsyncConnection, parameters: Mapping[str, Any], after: Any) -> Span | None:
        """The next page; None: no more. Row sizes are only summed one by one if they do not fit one page."""
        asked = {**parameters, "after": after}
        whole = (await connection.execute(self._whole, asked)).one()
        if whole.place is None:
            return None
        if whole.size <= PAGE_BYTES:
            return Span(after, whole.place, int(whole.size))
        sizes = await connection.execute(self._sizes, asked)
        return next(spans(((row.place, row.size) for row in sizes), after), None)

    async def rows(self, connection: AsyncConnection, parameters: Mapping[str, Any], of: Span) -> Sequence[Row[Any]]:
        if of.size > BURDEN:
            await burden(connection)
        found = await connection.execute(self._rows, {**parameters, "after": of.after, "up_to": of.up_to})
        rows: Sequence[Row[Any]] = found.all()
        return rows

    async def spans(self, database: Database, parameters: Mapping[str, Any], first: Any) -> AsyncIterator[Span]:
        """All pages after a position. No transaction stays open between them."""
        after = first
        while True:
            async with database.read() as connection:
                found = await self.span(connection, parameters, after)
            if found is None:
                return
            yield found
            after = found.up_to

    async def pages(
        self, database: Database, parameters: Mapping[str, Any], first: Any
    ) -> AsyncIterator[Sequence[Row[Any]]]:
        """The rows of all pages after a position. No transaction stays open between pages."""
        after = first
        while True:
            async with database.read() as connection:
                found = await self.span(connection, parameters, after)
                rows = [] if found is None else await self.rows(connection, parameters, found)
            if found is None:
                return
            yield rows
            after = found.up_to

    async def each(self, database: Database, parameters: Mapping[str, Any], first: Any = "") -> AsyncIterator[Row[Any]]:
        """The rows of all pages, one by one; no transaction stays open between pages."""
        async for rows in self.pages(database, parameters, first):
            for row in rows:
                yield row


def spans(sizes: Iterable[tuple[Any, int]], after: Any) -> Iterator[Span]:
    """Groups positions with their sizes, in order, into pages of at most PAGE_BYTES, or of a single row."""
    begins, last, total = after, None, 0
    for place, size in sizes:
        if last is not None and total + size > PAGE_BYTES:
            yield Span(begins, last, total)
            begins, total = last, 0
        last, total = place, total + size
    if last is not None:
        yield Span(begins, last, total)
