"""Jobs and batches as `--json` prints them: the documents that HTTP answers with, read from the same place."""

from understudy.models.config.settings import Settings
from understudy.models.objects.job import JobObject, job_object
from understudy.models.records import Waiting
from understudy.models.store import Store
from understudy.producer.ledger import UnknownId


async def job_document(
    settings: Settings, store: Store, job_id: str, tenant: str, waiting: Waiting | None = None
) -> JobObject:
    """A job of that tenant; `waiting`: what `waiting_of_job` says of it. Raises UnknownId, StoreError."""
    view = await store.jobs.seen(tenant, job_id)
    if view is None:
        raise UnknownId(job_id, "job")
    return job_object(view, await store.get_chain(view["chain_id"]), settings.api.public_url or "", waiting)
