"""Files: uploaded inputs, and results of batches. Their bytes are stored elsewhere: by the API, or in the result rows.

Deleting a file makes it expire immediately: it becomes invisible, and its content is then removed in slices, by
whichever process comes first. A crash in between does not undo the deletion.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Double,
    Row,
    Select,
    Text,
    bindparam,
    delete,
    exists,
    or_,
    select,
    tuple_,
    update,
)

from understudy.models.ids import time_of
from understudy.models.jobs.views import ERRORS, OUTPUT
from understudy.models.state import BatchState
from understudy.models.store.errors import StoreConflict
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, batch, clean, file

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


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's row. The API stores the bytes of an upload; an output is read from the results."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int | None  # None: not measured yet
    lines: int  # of an upload: lines that are not blank
    batch_id: str | None  # the batch whose output it is; None for an upload
    part: str | None  # "output" or "error"; None for an upload
    created_at: float
    expires_at: float | None


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
        row = await self._db.row(FILE, {"owner": tenant, "file_id": file_id})
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
        rows = await self._db.rows(OLDEST_FILES if ascending else NEWEST_FILES, asked)
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
        return [_record(row) for row in await self._db.rows(EXPIRED_FILES.limit(limit))]

    async def drop(self, file_id: str) -> None:
        """Delete the row of a file whose content was removed."""
        await self._db.change(DROP_FILE, {"file_id": file_id})

    async def set_bytes(self, file_id: str, size: int) -> None:
        await self._db.change(SET_BYTES, {"file_id": file_id, "size": size})

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
