"""Disk space for an SQLite ledger: a reserve is kept when work is accepted, and freed pages are returned."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.jobs.submission import NewJob
from understudy.models.routing.chain import Chain
from understudy.models.store.database.engine import Database
from understudy.models.store.errors import StoreFull

KEPT_BYTES = 8 * 1024 * 1024
"""Reserve for answers of running calls and for deleting rejected work: SQLite cannot delete on a full disk."""

ROW_BYTES = 1_500
"""Bytes per job without its prompt: its row and its index entries."""

PAGES_AT_ONCE = 2_000


def text_bytes(content: str | None) -> int:
    """Bytes that a text occupies."""
    if content is None or content.isascii():
        return len(content or "")
    return len(content.encode(errors="replace"))


def job_bytes(jobs: Sequence[NewJob]) -> list[int]:
    """Bytes of each job: its row, its prompt, what its output repeats and its metadata. The chain is
    written once and counts with the first job that has it."""
    weighed: set[int | str] = set()
    return [_job_bytes(each) + _chain_bytes(each.chain, weighed) for each in jobs]


def _job_bytes(job: NewJob) -> int:
    pairs = len(orjson.dumps(job.metadata)) if job.metadata else 0
    return ROW_BYTES + text_bytes(job.body) + text_bytes(job.extra) + pairs


def _chain_bytes(chain: Chain, weighed: set[int | str]) -> int:
    """0 if it was counted already, or has the same content as one that was."""
    if id(chain) in weighed:
        return 0
    said = "".join(step.model_dump_json() for step in chain.steps if step.params)
    known = said in weighed
    weighed |= {id(chain), said}
    return 0 if known else text_bytes(said)


async def check_room(
    database: Database, connection: AsyncConnection, needed: int, kept_bytes: int = KEPT_BYTES
) -> None:
    """Raises StoreFull if writing this many bytes would leave less than `kept_bytes`. A PostgreSQL server manages
    its own disk."""
    if database.dialect != "sqlite":
        return
    free = shutil.disk_usage(Path(database.place).parent).free
    if free >= kept_bytes + 2 * needed:
        return
    reusable = await _pragma(connection, "freelist_count") * await _pragma(connection, "page_size")
    wanted = kept_bytes + needed + max(needed - reusable, 0)  # in the journal and in the file
    if free < wanted:
        raise StoreFull(
            f"the disk with {database.place} is full: {free / 1e6:,.0f} MB are left and {wanted / 1e6:,.0f} MB are "
            "needed; free some space and try again"
        )


async def give_room_back(database: Database) -> None:
    """Shrink the file by its free pages, in slices. A file created by an early version keeps its size."""
    while database.dialect == "sqlite":
        async with database.write() as connection:
            before = await _pragma(connection, "freelist_count")
            if before:
                await _vacuum(connection)
            if await _pragma(connection, "freelist_count") in (0, before):
                return


async def _vacuum(connection: AsyncConnection) -> None:
    """Uses the driver directly: each step of the statement frees one page, and SQLAlchemy performs only one."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute_fetchall(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")


async def _pragma(connection: AsyncConnection, name: str) -> int:
    return int((await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one())
