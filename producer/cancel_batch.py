"""Cancelling a batch at once, whether or not a worker runs that would do it."""

from understudy.models.store import Store


async def cancel_batch(store: Store, batch_id: str) -> bool:
    """False when it has ended, is ending, or does not exist. What has ended keeps its result."""
    if not await store.ingest.cancel(batch_id) and not await store.batches.cancel(batch_id):
        return False
    while await store.batches.cancel_slice():
        continue
    await store.batches.close_finished()
    return True
