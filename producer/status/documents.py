"""Jobs and batches as JSON documents with their wait reasons, as returned over HTTP and printed by `--json`."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import of_batch, reserved_usd
from understudy.models.jobs.views import BatchView
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.objects.batch import BatchObject, batch_object
from understudy.models.objects.job import JobObject, job_object
from understudy.models.store import Store
from understudy.producer.ledger import UnknownId
from understudy.producer.queue_access import in_time
from understudy.producer.status.waiting import waiting_of

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def job_document(
    settings: Settings, store: Store, job_id: str, tenant: str, waiting: Waiting | None = None
) -> JobObject:
    """A job of that tenant. `waiting`: the result of `waiting_of_job`. Raises UnknownId, StoreError."""
    view = await store.jobs.view(job_id, tenant)
    if view is None:
        raise UnknownId(job_id, "job")
    return job_object(view, await store.get_chain(view.chain_id), settings.api.public_url or "", waiting)


async def batch_documents(store: Store, queue: "Redis | None", views: Sequence[BatchView]) -> list[BatchObject]:
    """Each batch with its wait reason, and the part of its budget reserved for calls in flight. Raises StoreError."""
    waiting = await waiting_of(store, queue, views)
    reserved = await asyncio.gather(*(reserved_of(queue, view) for view in views))
    return [batch_object(view, why, usd) for view, why, usd in zip(views, waiting, reserved, strict=True)]


async def reserved_of(queue: "Redis | None", view: BatchView) -> float | None:
    """USD reserved for the calls in flight of a batch; None: no budget, or unknown."""
    if view.budget_usd is None or queue is None:
        return None
    return await in_time(reserved_usd(queue, of_batch(view.id)))
