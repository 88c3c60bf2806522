"""Storage of uploaded files: the data folder, or a cloud object store; and the removal of what was deleted or expired.

A put is atomic: its bytes are visible completely or not at all. Several API processes may remove files at once: steps
are idempotent.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from understudy.models.config.private_files import FILE_MODE, make_private, make_private_within
from understudy.models.config.settings import Settings, SettingsError
from understudy.models.errors import OutOfReach, WrongUse
from understudy.models.store import Store
from understudy.models.store.files import FileRecord

if TYPE_CHECKING:
    from understudy.producer.api.context import Context

log = logging.getLogger(__name__)

FOLDER = "files"
PART_BYTES = 5 * 1024 * 1024
PARTS_AT_ONCE = 3
READ_BYTES = 256 * 1024
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""After this, an unreachable object store is given up: the caller is asked to retry, and its memory is freed."""
LOCAL = ("file:", "memory:")
LEFTOVERS_KEPT_S = 86_400.0
SWEPT_EVERY_S = 30.0
UNUSED_EVERY_S = 600.0


class TooLarge(WrongUse):
    """More bytes arrived than allowed."""

    status, code, param = 413, "file_too_large", "file"


class Empty(WrongUse):
    """No bytes arrived."""

    status, code, param = 400, "file_empty", "file"


class NoBlob(WrongUse):
    """There is no blob of that name."""

    status, code, param = 404, "not_found", "file"


class StorageDown(OutOfReach):
    """Nothing can be stored or read now, because the disk is full or not writable, or the object store is unreachable:
    the same call may succeed later."""


class Measure:
    """Counts bytes and non-blank lines of a stream of chunks, wherever it is cut."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = 0
        self._begun = False

    def add(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        first, *others = chunk.split(b"\n")
        self._begun = self._begun or _holds_something(first)
        if others:
            self._ended += self._begun + sum(map(_holds_something, others[:-1]))
            self._begun = _holds_something(others[-1])

    @property
    def lines(self) -> int:
        return self._ended + self._begun


def _holds_something(line: bytes) -> bool:
    return bool(line) and not line.isspace()


class Blobs:
    """File contents by file id."""

    def __init__(
        self, store: ObjectStore | None = None, place: str = "memory", max_bytes: int = 2**31, mode: int | None = None
    ) -> None:
        """Without a store, contents are kept in memory, for tests. `place`: used in messages. `mode`: file mode, if not
        left to the umask."""
        self._store = store or MemoryStore()
        self._place = place
        self._max_bytes = max_bytes
        self._mode = mode

    async def put(self, file_id: str, chunks: AsyncIterator[bytes]) -> tuple[int, int]:
        """Store the chunks. Returns the numbers of bytes and of non-blank lines.

        Raises TooLarge, Empty, StorageDown, and whatever `chunks` raises; then nothing is stored.
        """
        measure = Measure()
        with self._plain_errors(file_id):
            await obstore.put_async(
                self._store,
                file_id,
                self._measured(chunks, measure),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
            await self._sync(file_id)
        return measure.bytes, measure.lines

    async def read(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """The contents in pieces. Raises NoBlob, StorageDown."""
        with self._plain_errors(file_id):
            found = await obstore.get_async(self._store, file_id)
            async for chunk in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)

    async def delete(self, file_id: str) -> None:
        """Delete a file if it exists. Raises StorageDown."""
        try:
            with self._plain_errors(file_id):
                await obstore.delete_async(self._store, file_id)
        except NoBlob:
            return

    async def _measured(self, chunks: AsyncIterator[bytes], measure: Measure) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            measure.add(chunk)
            if measure.bytes > self._max_bytes:
                raise TooLarge(f"the file is longer than {self._max_bytes:,} bytes")
            yield chunk
        if not measure.bytes:
            raise Empty("the file is empty")

    async def _sync(self, file_id: str) -> None:
        """Sync a file of the data folder to disk, because accepted batches rely on it and the library does not do
        it."""
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            if self._mode is not None:
                await asyncio.to_thread(os.chmod, self._store.prefix / file_id, self._mode)
            for path in (self._store.prefix / file_id, self._store.prefix):
                await asyncio.to_thread(_sync, path)

    @contextmanager
    def _plain_errors(self, file_id: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NoBlob(f"the content of {file_id} is gone from {self._place}") from None
        except (BaseError, OSError):
            # the library's messages contain addresses, paths and responses of the cloud
            raise StorageDown(
                f"files cannot be stored or read in {self._place}; check that it is available and has free space"
            ) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_blobs(settings: Settings) -> Blobs:
    """The file storage of these settings. Raises SettingsError."""
    if settings.files_url is None:
        return _in_folder(settings.data / FOLDER, settings.api.max_file_bytes)
    url = settings.files_url
    try:
        store = from_url(url) if url.startswith(LOCAL) else from_url(url, retry_config=RETRIES)  # type: ignore[call-overload]
    except (BaseError, OSError, ValueError):
        raise SettingsError("'files_url' is not the address of an object store such as s3://bucket/prefix") from None
    place = f"the object store of files_url ({url.partition(':')[0]})"
    return Blobs(store, place, settings.api.max_file_bytes)


def _in_folder(folder: Path, max_bytes: int) -> Blobs:
    try:
        make_private(folder.parent)
        make_private_within(folder)
        _remove_leftovers(folder)
        return Blobs(LocalStore(folder.absolute()), f"the folder {folder}", max_bytes, FILE_MODE)
    except (BaseError, OSError):
        raise SettingsError(f"the folder {folder} cannot be used for files; check its permissions") from None


def _remove_leftovers(folder: Path) -> None:
    """Remove partial uploads that killed processes left under temporary names."""
    before = time.time() - LEFTOVERS_KEPT_S
    for path in folder.glob("file_*#*"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


async def sweep_files(api: "Context") -> None:
    """Remove expired files after each deletion and periodically, until cancelled."""
    loop, looked_at = asyncio.get_running_loop(), float("-inf")
    while True:
        try:
            if loop.time() - looked_at >= UNUSED_EVERY_S:
                await api.store.retention.end_unused_uploads(api.settings.api.unused_uploads_kept_s)
                looked_at = loop.time()
            await remove_expired(api.store, api.blobs)
        except OutOfReach as error:
            log.warning("deleted files could not be removed yet, will retry: %s", error)
        except Exception as error:
            # One file that cannot be removed must not stop the removal of others.
            log.error("removing files failed: %s", type(error).__name__)
        try:
            await asyncio.wait_for(api.deleted_files.wait(), SWEPT_EVERY_S)
        except TimeoutError:
            continue
        api.deleted_files.clear()


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
