"""The ledger as commands and the client open it: beside whatever works on it now.

NoLedger    there is none, or nothing in it; one sentence
UnknownId   nothing is known by this id; one sentence
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from models.settings import Settings
from models.store import LEDGER_FILE, Store, open_store

NEWEST = frozenset({"latest", "-"})
"""What a person may write in place of the id of the newest batch."""


class NoLedger(Exception):
    """There is no ledger that could be used."""


class UnknownId(LookupError):
    """No batch or job has this id."""

    def __init__(self, given: str, kind: str = "batch or job") -> None:
        super().__init__(f"there is no {kind} {given}; `understudy status` lists the latest batches")


@asynccontextmanager
async def open_ledger(settings: Settings, *, create: bool = False) -> AsyncIterator[Store]:
    """The ledger of these settings. Without `create`, looking for one leaves no folder behind.

    Raises NoLedger, StoreUnavailable.
    """
    if settings.database_url is None and not create and not (settings.data / LEDGER_FILE).exists():
        raise NoLedger(f"nothing was submitted in {settings.data} yet; name another folder with --data")
    async with open_store(settings.database_url, settings.data) as store:
        yield store


async def batch_named(store: Store, given: str) -> str:
    """The id of an existing batch: as given, or the newest one's. Raises UnknownId, NoLedger."""
    if given in NEWEST:
        newest = await store.latest_batch()
        if newest is None:
            raise NoLedger("no batch was submitted yet")
        return newest
    if await store.batch_view(given) is None:
        raise UnknownId(given, "batch")
    return given
