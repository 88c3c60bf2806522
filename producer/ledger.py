"""The ledger as commands and the client open it, while other processes may be using it.

NoLedger    there is none, or it is empty; one sentence
UnknownId   no object has this id; one sentence
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from understudy.models.config.settings import Settings
from understudy.models.errors import WrongUse
from understudy.models.jobs.views import JobView
from understudy.models.store import LEDGER_FILE, Store, open_store
from understudy.models.tenants import DEFAULT_TENANT

NEWEST = frozenset({"latest", "-"})
"""Aliases for the id of the newest batch."""


class NoLedger(WrongUse):
    """There is no usable ledger."""


class UnknownId(WrongUse, LookupError):
    """No batch or job has this id."""

    status = 404
    code = "not_found"

    def __init__(self, given: str, kind: str = "batch or job") -> None:
        super().__init__(f"there is no {kind} {given}; `understudy status` lists the latest batches")


@asynccontextmanager
async def open_ledger(settings: Settings, *, create: bool = False) -> AsyncIterator[Store]:
    """The ledger of these settings. Without `create`, nothing is created when there is none.

    Raises NoLedger, StoreUnavailable.
    """
    if settings.database_url is None and not create and not (settings.data / LEDGER_FILE).exists():
        raise NoLedger(f"nothing has been submitted in {settings.data} yet; choose another folder with --data")
    async with open_store(settings.database_url, settings.data) as store:
        yield store


async def shown_batch(store: Store, given: str, tenant: str | None = None) -> str:
    """The id of an existing batch, for reading: as given, or of the newest batch, of one tenant or of all.

    Raises UnknownId, NoLedger.
    """
    if given in NEWEST:
        newest = await store.batches.latest(tenant)
        if newest is None:
            raise NoLedger("no batches have been submitted yet" + (f" by tenant {tenant}" if tenant else ""))
        return newest
    view = await store.batches.view(given)
    if view is None or tenant not in (None, view.tenant):
        raise UnknownId(given, "job" if given.startswith("job_") else "batch")
    return given


async def job_named(store: Store, given: str, tenant: str | None = None) -> JobView | None:
    """The job with this id, of one tenant if given; None if there is no such job."""
    return None if given in NEWEST else await store.jobs.view(given, tenant)


async def batch_named(store: Store, given: str) -> str:
    """As `shown_batch`, for changes: the newest batch of another tenant must be given by its id.

    Raises UnknownId, NoLedger, and WrongUse for a batch of another tenant.
    """
    batch_id = await shown_batch(store, given)
    if given in NEWEST:
        view = await store.batches.view(batch_id)
        if view is not None and view.tenant != DEFAULT_TENANT:
            raise WrongUse(f"the newest batch, {batch_id}, belongs to tenant {view.tenant}; give its id explicitly")
    return batch_id


async def cancel_batch(store: Store, batch_id: str) -> bool:
    """False when it has ended, is ending, or does not exist. Finished jobs keep their results."""
    if not await store.filling.cancel(batch_id) and not await store.batch_lifecycle.cancel(batch_id):
        return False
    while await store.batch_lifecycle.cancel_slice():
        continue
    await store.batch_lifecycle.close_finished()
    return True
