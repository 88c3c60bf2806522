"""Files: uploaded inputs, and results of batches. Their bytes are stored elsewhere: by the API, or in the result rows.

Deleting a file makes it expire immediately: it becomes invisible, and its content is then removed in slices, by
whichever process comes first. A crash in between does not undo the deletion.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    Double,
    Row,
    Select,
    Text,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from understudy.models.ids import time_of
from understudy.models.records import FileRecord, OutputRow
from understudy.models.state import TERMINAL_STATES, BatchState, JobState
from understudy.models.store.batches.views import ERRORS, OUTPUT, WAITED_FOR, waited_for
from understudy.models.store.database.disk_space import ROW_BYTES
from understudy.models.store.errors import StoreConflict
from understudy.models.store.ledger import Area
from understudy.models.store.paging import ANSWER_BYTES, Paged, Span, size_of
from understudy.models.store.sql import NOW, batch, clean, file, job, job_input, result

SLICE = 2_000
EXPIRED_AT_ONCE = 100
UPLOAD = "batch"
"""The purpose of an uploaded input."""

OF_BATCH = re.compile(rf"file_(batch_\w+)_(?:{OUTPUT}|{ERRORS})")

_alive = or_(file.c.expires_at.is_(None), file.c.expires_at > NOW)
_awaited = exists(
    select(batch.c.id).where(batch.c.state == str(BatchState.VALIDATING), batch.c.input_file_id == file.c.id)
)
_this = (file.c.id == bindparam("file_id"), file.c.tenant == bindparam("owner"))

FILE = select(file).where(*_this, _alive)
"""A tenant's file."""

FILE_CREATED_AT = select(file.c.created_at).where(*_this)
"""When a tenant's file was created, even while it is being deleted."""

BATCH_ENDED_AT = select(batch.c.ended_at).where(
    batch.c.id == bindparam("batch_id"), batch.c.tenant == bindparam("owner")
)
"""When a tenant's batch ended, which is the creation time of its files."""


def _files_page(ascending: bool) -> Select[Any]:
    place = tuple_(file.c.created_at, file.c.id)
    given = tuple_(bindparam("at", type_=Double), bindparam("after", type_=Text))
    order = (file.c.created_at, file.c.id) if ascending else (file.c.created_at.desc(), file.c.id.desc())
    return (
        select(file)
        .where(
            file.c.tenant == bindparam("tenant"),
            file.c.purpose.in_(bindparam("purposes", expanding=True)),
            _alive,
            place > given if ascending else place < given,
        )
        .order_by(*order)
        .limit(bindparam("most"))
    )


OLDEST_FILES, NEWEST_FILES = _files_page(ascending=True), _files_page(ascending=False)
"""A page of a tenant's files, oldest or newest first."""

END_FILE = update(file).where(*_this, _alive, ~_awaited).values(expires_at=NOW).returning(file.c.batch_id, file.c.part)
"""Delete a tenant's file, unless a batch still has to read it."""

MARK_BATCH = (
    update(batch).where(batch.c.id == bindparam("of_batch"), batch.c.delivered_at.is_(None)).values(delivered_at=NOW)
)
"""Deleting a batch's output marks it as delivered."""

EXPIRED_FILES = select(file).where(file.c.expires_at <= NOW, ~_awaited).order_by(file.c.expires_at)
"""Expired files that no batch still has to read."""

DROP_FILE = delete(file).where(file.c.id == bindparam("file_id"))
"""Delete the row of a file."""

SET_BYTES = update(file).where(file.c.id == bindparam("file_id")).values(bytes=bindparam("size"))
"""Set the size of a file."""

_of_part = (job.c.batch_id == bindparam("batch_id"), job.c.state.in_(bindparam("states", expanding=True)))

_part = (
    select(job.c.id.label("job_id"), job.c.custom_id, job.c.line, job.c.state, result.c.status_code, *WAITED_FOR)
    .select_from(job)
    .outerjoin(result, result.c.job_id == job.c.id)
    .outerjoin(batch, batch.c.id == job.c.batch_id)
    .where(*_of_part)
)
PART_PAGE = Paged(_part.add_columns(result.c.body, result.c.error), job.c.id, ANSWER_BYTES + size_of(job.c.custom_id))
"""A page of a batch's jobs that ended in certain states, with their results."""

PART_SIZES = Paged(_part.add_columns(ANSWER_BYTES.label("answer_bytes")), job.c.id, size_of(job.c.custom_id))
"""The same, with the size of their results instead."""

PART_IDS = select(job.c.id).where(*_of_part, job.c.id > bindparam("after")).order_by(job.c.id).limit(SLICE)
"""A slice of a batch's jobs that ended in certain states."""

_ids: BindParameter[str] = bindparam("ids", expanding=True)

_prompt_bytes = case((job.c.bytes > ROW_BYTES, job.c.bytes - ROW_BYTES), else_=0)
_stored = func.coalesce(func.sum(_prompt_bytes + func.coalesce(job.c.answer_bytes, 0)), 0)

FORGET = (
    update(batch)
    .where(batch.c.id.in_(select(job.c.batch_id).where(job.c.id.in_(_ids))))
    .values(
        stored_bytes=batch.c.stored_bytes
        - select(_stored).where(job.c.batch_id == batch.c.id, job.c.id.in_(_ids)).scalar_subquery()
    ),
    delete(job_input).where(job_input.c.job_id.in_(_ids)),
    update(result).where(result.c.job_id.in_(_ids)).values(body=None, error=None),
    update(job).where(job.c.id.in_(_ids)).values(answer_bytes=0, bytes=job.c.bytes - _prompt_bytes),
)
"""Prompts and answers of some jobs; cost and outcome are kept."""

STATES = {
    OUTPUT: [str(JobState.SUCCEEDED)],
    ERRORS: sorted(str(state) for state in TERMINAL_STATES - {JobState.SUCCEEDED}),
}
"""The job states in each part of a batch's results."""


class Files(Area):
    async def add(
        self, file_id: str, tenant: str, filename: str, size: int, lines: int, lives_s: float | None = None
    ) -> FileRecord:
        """An upload whose bytes are stored; created at the time in its id, expires `lives_s` later."""
        created_at = time_of(file_id)
        record = FileRecord(
            id=file_id,
            tenant=tenant,
            purpose=UPLOAD,
            filename=clean(filename) or "",
            bytes=size,
            lines=lines,
            batch_id=None,
            part=None,
            created_at=created_at,
            expires_at=None if lives_s is None else created_at + lives_s,
        )
        async with self._db.write() as connection:
            row = {each: getattr(record, each) for each in file.columns.keys()}
            await connection.execute(file.insert(), row)
        return record

    async def view(self, tenant: str, file_id: str) -> FileRecord | None:
        """None if the tenant has no such file, or no longer."""
        async with self._db.read() as connection:
            row = (await connection.execute(FILE, {"owner": tenant, "file_id": file_id})).first()
        return None if row is None else _record(row)

    async def page(
        self,
        tenant: str,
        purposes: Sequence[str],
        limit: int,
        after: str | None = None,
        ascending: bool = False,
    ) -> list[FileRecord] | None:
        """A tenant's files by creation time; `after` is the last one seen, which may have been deleted since. None
        if `after` is not a file."""
        at = (-1.0 if ascending else 1e12) if after is None else await self._place_of(tenant, after)
        if at is None:
            return None
        asked = {"tenant": tenant, "purposes": list(purposes), "most": limit, "at": at, "after": after or ""}
        async with self._db.read() as connection:
            rows = (await connection.execute(OLDEST_FILES if ascending else NEWEST_FILES, asked)).all()
        return [_record(row) for row in rows]

    async def delete(self, tenant: str, file_id: str) -> bool:
        """Delete the file; False if there is none. Raises StoreConflict while a batch must read it."""
        asked = {"owner": tenant, "file_id": file_id}
        async with self._db.write() as connection:
            ended = (await connection.execute(END_FILE, asked)).first()
            if ended is not None:
                if ended.part == OUTPUT:
                    await connection.execute(MARK_BATCH, {"of_batch": ended.batch_id})
                return True
            if (await connection.execute(FILE, asked)).first() is None:
                return False
        raise StoreConflict(f"{file_id} is being read by a batch; wait until it is validated, or cancel it")

    async def expired(self, limit: int = EXPIRED_AT_ONCE) -> list[FileRecord]:
        """Expired or deleted files whose content is still to be removed."""
        async with self._db.read() as connection:
            return [_record(row) for row in await connection.execute(EXPIRED_FILES.limit(limit))]

    async def drop(self, file_id: str) -> None:
        """Delete the row of a file whose content was removed."""
        async with self._db.write() as connection:
            await connection.execute(DROP_FILE, {"file_id": file_id})

    async def set_bytes(self, file_id: str, size: int) -> None:
        async with self._db.write() as connection:
            await connection.execute(SET_BYTES, {"file_id": file_id, "size": size})

    def part_spans(self, batch_id: str, part: str) -> AsyncIterator[Span]:
        """Page by page, the rows of a batch's output or error file, to be read when there is memory for them."""
        return PART_PAGE.spans(self._db, {"batch_id": batch_id, "states": STATES[part]}, "")

    async def part_rows(self, batch_id: str, part: str, of: Span) -> list[OutputRow]:
        """One of these pages."""
        asked = {"batch_id": batch_id, "states": STATES[part]}
        async with self._db.read() as connection:
            return [_output_row(row) for row in await PART_PAGE.rows(connection, asked, of)]

    async def part_sizes(self, batch_id: str, part: str) -> AsyncIterator[tuple[OutputRow, int]]:
        """The same rows without body and error, each with the size in bytes of what is omitted."""
        asked = {"batch_id": batch_id, "states": STATES[part]}
        async for rows in PART_SIZES.pages(self._db, asked, ""):
            for row in rows:
                yield _output_row(row), row.answer_bytes

    async def forget_part(self, batch_id: str, part: str) -> None:
        """Remove the prompts and answers of a batch's output or error file, in slices; counts and costs are kept."""
        after = ""
        while True:
            async with self._db.write() as connection:
                asked = {"batch_id": batch_id, "after": after, "states": STATES[part]}
                ids = (await connection.execute(PART_IDS, asked)).scalars().all()
                for statement in FORGET if ids else ():
                    await connection.execute(statement, {"ids": ids})
            if not ids:
                return
            after = ids[-1]

    async def _place_of(self, tenant: str, file_id: str) -> float | None:
        """When a file was created. Callers delete listed files page by page, so the ids of deleted files are
        accepted."""
        asked = {"owner": tenant, "file_id": file_id}
        of_batch = OF_BATCH.fullmatch(file_id)
        async with self._db.read() as connection:
            at: float | None = (await connection.execute(FILE_CREATED_AT, asked)).scalar()
            if at is None and of_batch is not None:
                asked = {"owner": tenant, "batch_id": of_batch[1]}
                at = (await connection.execute(BATCH_ENDED_AT, asked)).scalar()
                return at
        if at is not None:
            return at
        try:
            return time_of(file_id)
        except ValueError:
            return None


def _record(row: Row[Any]) -> FileRecord:
    return FileRecord(**row._mapping)


def _output_row(row: Row[Any]) -> OutputRow:
    return OutputRow(
        job_id=row.job_id,
        custom_id=row.custom_id,
        line=row.line,
        state=JobState(row.state),
        status_code=row.status_code,
        body=getattr(row, "body", None),
        error=orjson.loads(said) if (said := getattr(row, "error", None)) else None,
        provider=None,
        model=None,
        cost_usd=0.0,
        extra=None,
        waited_for=waited_for(row),
    )
