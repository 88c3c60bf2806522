"""Cancelling a job: the ledger decides, and whom it concerns is told at once.

Its worker would find out by looking within a second, and so would those who wait for its end.
"""

import logging

from redis.exceptions import RedisError

from models import keys, tickets
from models.state import JobState
from producer.api.context import Context

log = logging.getLogger(__name__)


async def cancel_job(api: Context, job_id: str) -> None:
    """Cancel a job that has not ended; one that runs is stopped by its worker in a moment. Raises StoreError."""
    state = await api.store.cancel_job(job_id)
    holder = await api.store.holder_of(job_id) if state is JobState.RUNNING else None
    if state is JobState.CANCELLED:
        api.waiters.tell([job_id])
    try:
        if state is JobState.CANCELLED:
            await api.redis.publish(keys.ENDED, job_id)
        elif holder is not None:
            await tickets.ask_to_stop(api.redis, holder, job_id)
    except (RedisError, OSError) as error:
        log.warning("the end of %s is found by looking, Redis cannot be told: %s", job_id, type(error).__name__)
