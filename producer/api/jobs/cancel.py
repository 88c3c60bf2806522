"""Cancelling a job over HTTP: callers waiting for it in this process are notified at once."""

from understudy.models.state import JobState
from understudy.producer.api.context import Context
from understudy.producer.single_jobs import cancel_job as cancel_in_ledger


async def cancel_job(api: Context, job_id: str) -> None:
    """Cancel a job that has not ended; a running job is stopped by its worker shortly. Raises StoreError."""
    if await cancel_in_ledger(api.store, api.redis, job_id) is JobState.CANCELLED:
        api.waiters.tell([job_id])
