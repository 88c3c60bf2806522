"""Where the bytes of uploaded files are kept: the data folder, or an object store in a cloud.

BlobError
├── TooLarge     more bytes than allowed arrived
├── Empty        no byte arrived
├── NoBlob       there are no bytes of that name
└── StorageDown  the disk is full or not writable, or the object store cannot be reached

What one put writes is seen whole or not at all.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from understudy.models.config.private_files import FILE_MODE, make_private, make_private_within
from understudy.models.config.settings import Settings, SettingsError

FOLDER = "files"
PART_BYTES = 5 * 1024 * 1024
PARTS_AT_ONCE = 3
READ_BYTES = 256 * 1024
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""An object store that is away is given up after this: the caller is told to come back, and its memory is freed."""
LOCAL = ("file:", "memory:")
LEFTOVERS_KEPT_S = 86_400.0


class BlobError(Exception):
    """The bytes could not be kept or read. One sentence."""


class TooLarge(BlobError):
    """More bytes than allowed arrived."""


class Empty(BlobError):
    """No byte arrived."""


class NoBlob(BlobError):
    """There are no bytes of that name."""


class StorageDown(BlobError):
    """Nothing can be kept or read now; the same call may succeed later."""


class Measure:
    """Counts bytes and the lines that are not blank while they pass by, wherever they are cut."""

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
    """Bytes by the id of their file."""

    def __init__(
        self, store: ObjectStore | None = None, place: str = "memory", max_bytes: int = 2**31, mode: int | None = None
    ) -> None:
        """Without a store they are kept in memory: for tests. `place` is for people. `mode`: who may read the files,
        where it is not left to the umask."""
        self._store = store or MemoryStore()
        self._place = place
        self._max_bytes = max_bytes
        self._mode = mode

    async def put(self, file_id: str, chunks: AsyncIterator[bytes]) -> tuple[int, int]:
        """Keep what arrives; returns how many bytes and how many lines that are not blank.

        Raises BlobError, and whatever `chunks` raises; nothing is kept then.
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
        """The bytes in pieces. Raises NoBlob, StorageDown."""
        with self._plain_errors(file_id):
            found = await obstore.get_async(self._store, file_id)
            async for chunk in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)

    async def delete(self, file_id: str) -> None:
        """Does nothing when there is none. Raises StorageDown."""
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
        """The library leaves it to the system when a file of the data folder reaches the disk; a batch relies on it."""
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
            # the library's own words would show addresses, paths and answers of the cloud
            raise StorageDown(
                f"files cannot be kept or read now in {self._place}: is it there, and has it room?"
            ) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_blobs(settings: Settings) -> Blobs:
    """Where these settings keep files. Raises SettingsError."""
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
    """A process that was killed leaves what it had of an upload, under a name that nobody reads."""
    before = time.time() - LEFTOVERS_KEPT_S
    for path in folder.glob("file_*#*"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
