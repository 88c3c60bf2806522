"""Removing what deleted and expired files held. Several API processes may do it at once: each step may be repeated."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from understudy.models.records import FileRecord
from understudy.models.store import Store, StoreError
from understudy.producer.api.context import Context
from understudy.producer.api.files.blobs import BlobError, Blobs

log = logging.getLogger(__name__)

EVERY_S = 30.0
UNUSED_EVERY_S = 600.0


@asynccontextmanager
async def sweeping(api: Context) -> AsyncIterator[None]:
    """Files are removed for as long as the block runs."""
    task = asyncio.create_task(sweep_files(api), name="sweep-files")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def sweep_files(api: Context) -> None:
    """Remove files whose time is up, whenever one was deleted and every now and then, until cancelled."""
    loop, looked_at = asyncio.get_running_loop(), float("-inf")
    while True:
        try:
            if loop.time() - looked_at >= UNUSED_EVERY_S:
                await api.store.retention.end_unused_uploads(api.settings.api.unused_uploads_kept_s)
                looked_at = loop.time()
            await sweep_once(api)
        except (StoreError, BlobError) as error:
            log.warning("files that are gone could not be removed and will be later: %s", error)
        except Exception as error:
            # A file that cannot be removed must not end the removal of others.
            log.error("removing files failed: %s", type(error).__name__)
        try:
            await asyncio.wait_for(api.deleted_files.wait(), EVERY_S)
        except TimeoutError:
            continue
        api.deleted_files.clear()


async def sweep_once(api: Context) -> int:
    """Remove all files whose time is up; returns how many."""
    return await remove_expired(api.store, api.blobs)


async def remove_expired(store: Store, blobs: Blobs) -> int:
    """Remove what files held whose time is up; returns how many they were. Raises StoreError, BlobError."""
    removed = 0
    while files := await store.files.expired():
        for each in files:
            await _remove(store, blobs, each)
        removed += len(files)
    return removed


async def _remove(store: Store, blobs: Blobs, file: FileRecord) -> None:
    """The row goes last, so that a removal which broke off is found again."""
    if file.batch_id is None or file.part is None:
        await blobs.delete(file.id)
    else:
        await store.files.forget_part(file.batch_id, file.part)
    await store.files.drop(file.id)
