"""Removes the content of deleted and expired files. Several API processes may do it at once: steps are idempotent."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from understudy.models.errors import OutOfReach
from understudy.models.store import Store
from understudy.models.store.files import FileRecord
from understudy.producer.api.context import Context
from understudy.producer.api.files.blobs import Blobs

log = logging.getLogger(__name__)

EVERY_S = 30.0
UNUSED_EVERY_S = 600.0


@asynccontextmanager
async def sweeping(api: Context) -> AsyncIterator[None]:
    """Remove files while the block runs."""
    task = asyncio.create_task(sweep_files(api), name="sweep-files")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def sweep_files(api: Context) -> None:
    """Remove expired files after each deletion and periodically, until cancelled."""
    loop, looked_at = asyncio.get_running_loop(), float("-inf")
    while True:
        try:
            if loop.time() - looked_at >= UNUSED_EVERY_S:
                await api.store.retention.end_unused_uploads(api.settings.api.unused_uploads_kept_s)
                looked_at = loop.time()
            await sweep_once(api)
        except OutOfReach as error:
            log.warning("deleted files could not be removed yet, will retry: %s", error)
        except Exception as error:
            # One file that cannot be removed must not stop the removal of others.
            log.error("removing files failed: %s", type(error).__name__)
        try:
            await asyncio.wait_for(api.deleted_files.wait(), EVERY_S)
        except TimeoutError:
            continue
        api.deleted_files.clear()


async def sweep_once(api: Context) -> int:
    """Remove all expired files. Returns their number."""
    return await remove_expired(api.store, api.blobs)


async def remove_expired(store: Store, blobs: Blobs) -> int:
    """Remove the content of all expired files. Returns their number. Raises StoreError, StorageDown."""
    removed = 0
    while files := await store.files.expired():
        for each in files:
            await _remove(store, blobs, each)
        removed += len(files)
    return removed


async def _remove(store: Store, blobs: Blobs, file: FileRecord) -> None:
    """Remove a file. Its row goes last, so that an interrupted removal is found again."""
    if file.batch_id is None or file.part is None:
        await blobs.delete(file.id)
    else:
        await store.outputs.forget_part(file.batch_id, file.part)
    await store.files.drop(file.id)
