"""The ledger as commands and the client open it: beside whatever works on it now.

NoLedger    there is none, or nothing in it; one sentence
UnknownId   nothing is known by this id; one sentence
OtherTenant the newest batch is another tenant's; one sentence
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from understudy.models.config.settings import Settings
from understudy.models.errors import WrongUse
from understudy.models.store import LEDGER_FILE, Store, open_store
from understudy.models.tenants import DEFAULT_TENANT

NEWEST = frozenset({"latest", "-"})
"""What a person may write in place of the id of the newest batch."""


class NoLedger(WrongUse):
    """There is no ledger that could be used."""


class UnknownId(WrongUse, LookupError):
    """No batch or job has this id."""

    def __init__(self, given: str, kind: str = "batch or job") -> None:
        super().__init__(f"there is no {kind} {given}; `understudy status` lists the latest batches")


class OtherTenant(WrongUse, LookupError):
    """`latest` would change a batch of another tenant."""


@asynccontextmanager
async def open_ledger(settings: Settings, *, create: bool = False) -> AsyncIterator[Store]:
    """The ledger of these settings. Without `create`, looking for one leaves no folder behind.

    Raises NoLedger, StoreUnavailable.
    """
    if settings.database_url is None and not create and not (settings.data / LEDGER_FILE).exists():
        raise NoLedger(f"nothing was submitted in {settings.data} yet; name another folder with --data")
    async with open_store(settings.database_url, settings.data) as store:
        yield store


async def shown_batch(store: Store, given: str, tenant: str | None = None) -> str:
    """The id of an existing batch, for who looks at it: as given, or the newest one's, of a tenant or of all.

    Raises UnknownId, NoLedger.
    """
    if given in NEWEST:
        newest = await store.batches.latest(tenant)
        if newest is None:
            raise NoLedger("no batch was submitted yet" + (f" by tenant {tenant}" if tenant else ""))
        return newest
    view = await store.batches.view(given)
    if view is None or tenant not in (None, view.tenant):
        raise UnknownId(given, "job" if given.startswith("job_") else "batch")
    return given


async def job_named(store: Store, given: str, tenant: str | None = None) -> dict[str, Any] | None:
    """What the ledger shows of a job, of one tenant if that is given; None when the id is none of such a job."""
    job = None if given in NEWEST else await store.jobs.view(given)
    return job if job is not None and tenant in (None, job["tenant"]) else None


async def batch_named(store: Store, given: str) -> str:
    """As `shown_batch`, for who changes it: the newest one of another tenant must be named by its id.

    Raises UnknownId, NoLedger, OtherTenant.
    """
    batch_id = await shown_batch(store, given)
    if given in NEWEST:
        view = await store.batches.view(batch_id)
        if view is not None and view.tenant != DEFAULT_TENANT:
            raise OtherTenant(f"the newest batch, {batch_id}, belongs to tenant {view.tenant}; name it by its id")
    return batch_id
