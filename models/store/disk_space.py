"""Room on the disk with an SQLite ledger: some is kept when work is accepted, and what was deleted is given back."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.records import NewJob
from understudy.models.routing.chain import Chain
from understudy.models.store.engine import Database
from understudy.models.store.errors import StoreFull

KEPT_BYTES = 8 * 1024 * 1024
"""For answers that are under way, and for deleting what is refused: SQLite cannot delete on a disk that is full."""

ROW_BYTES = 1_500
"""What a job takes apart from its prompt: its row, and its entries in the indexes."""

PAGES_AT_ONCE = 2_000


def text_bytes(content: str | None) -> int:
    """Bytes that a text takes."""
    if content is None or content.isascii():
        return len(content or "")
    return len(content.encode(errors="replace"))


def job_bytes(jobs: Sequence[NewJob]) -> list[int]:
    """What each job takes: its row, its prompt, what its output needs again and its caller's pairs. What a chain says
    of its steps is written once, and counts with the first job that has it."""
    weighed: set[int | str] = set()
    return [_job_bytes(each) + _chain_bytes(each.chain, weighed) for each in jobs]


def _job_bytes(job: NewJob) -> int:
    pairs = len(orjson.dumps(job.metadata)) if job.metadata else 0
    return ROW_BYTES + text_bytes(job.body) + text_bytes(job.extra) + pairs


def _chain_bytes(chain: Chain, weighed: set[int | str]) -> int:
    """0 for one that was weighed, or one that says the same."""
    if id(chain) in weighed:
        return 0
    said = "".join(step.model_dump_json() for step in chain.steps if step.params)
    known = said in weighed
    weighed |= {id(chain), said}
    return 0 if known else text_bytes(said)


async def check_room(
    database: Database, connection: AsyncConnection, needed: int, kept_bytes: int = KEPT_BYTES
) -> None:
    """Raises StoreFull when so much cannot be written and `kept_bytes` be left. A server minds its own disk."""
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
    """Shorten the file by what was deleted from it, in slices. One that an earlier version made keeps its length."""
    while database.dialect == "sqlite":
        async with database.write() as connection:
            before = await _pragma(connection, "freelist_count")
            if before:
                await _vacuum(connection)
            if await _pragma(connection, "freelist_count") in (0, before):
                return


async def _vacuum(connection: AsyncConnection) -> None:
    """By the driver: each step of the statement frees one page, and SQLAlchemy takes one."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    await driver.execute_fetchall(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")


async def _pragma(connection: AsyncConnection, name: str) -> int:
    return int((await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one())
