"""Cancels a batch at once, even if no worker is running."""

from understudy.models.store import Store


async def cancel_batch(store: Store, batch_id: str) -> bool:
    """False when it has ended, is ending, or does not exist. Finished jobs keep their results."""
    if not await store.ingest.cancel(batch_id) and not await store.batches.cancel(batch_id):
        return False
    while await store.batches.cancel_slice():
        continue
    await store.batches.close_finished()
    return True
