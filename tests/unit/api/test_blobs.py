"""Bytes of uploads: complete or not at all, measured as they pass."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from understudy.models.config.settings import ApiSettings, Settings, SettingsError
from understudy.producer.api.files.blobs import Blobs, Empty, Measure, NoBlob, StorageDown, TooLarge, open_blobs

TEXT = b'{"a":1}\n\n  \t\r\n{"b":2}\r\n\n{"c":3}\x00\n   '
MAX = 20_000_000


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs(LocalStore(tmp_path) if request.param == "folder" else MemoryStore(), max_bytes=MAX)


async def pieces(data: bytes, size: int, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
    if then is not None:
        raise then


async def whole(blobs: Blobs, name: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(name)])


@pytest.mark.parametrize("size", range(1, len(TEXT) + 1))
def test_lines_that_are_not_blank_are_counted_wherever_the_bytes_are_cut(size: int) -> None:
    measure = Measure()
    for start in range(0, len(TEXT), size):
        measure.add(TEXT[start : start + size])
    assert (measure.bytes, measure.lines) == (len(TEXT), 3)
    assert measure.lines == sum(bool(line.strip()) for line in TEXT.split(b"\n"))


async def test_what_was_put_is_read_again_and_deleted_once_or_twice(blobs: Blobs) -> None:
    data = b"x" * 12_000_000 + b"\n"
    assert await blobs.put("file_1", pieces(data, 70_001)) == (len(data), 1)
    assert await whole(blobs, "file_1") == data
    await blobs.delete("file_1")
    await blobs.delete("file_1")
    with pytest.raises(NoBlob):
        await whole(blobs, "file_1")


@pytest.mark.parametrize(
    ("data", "then", "raised"),
    [
        (b"x" * 11_000_000, RuntimeError("gone"), RuntimeError),
        (b"x" * (MAX + 1), None, TooLarge),
        (b"", None, Empty),
    ],
    ids=["broken off", "too large", "empty"],
)
async def test_nothing_is_kept_of_what_did_not_arrive_whole(
    tmp_path: Path, blobs: Blobs, data: bytes, then: BaseException | None, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await blobs.put("file_1", pieces(data, 100_000, then))
    with pytest.raises(NoBlob):
        await whole(blobs, "file_1")
    await until(lambda: not list(tmp_path.iterdir()))


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 11_000_000
        await asyncio.Event().wait()

    putting = asyncio.create_task(Blobs(LocalStore(tmp_path)).put("file_1", slow()))
    await until(lambda: bool(list(tmp_path.iterdir())))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await until(lambda: not list(tmp_path.iterdir()))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_folder_that_is_away_is_told_in_one_sentence(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, api=ApiSettings(max_file_bytes=10))
    blobs = open_blobs(settings)
    folder = tmp_path / "files"
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(StorageDown, match="has free space"):
        await blobs.put("file_1", pieces(b"x", 1))
    with pytest.raises(SettingsError, match="cannot be used for files"):
        open_blobs(settings)


async def test_a_disk_that_takes_no_more_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7_000_000, limits[1]))
    try:
        with pytest.raises(StorageDown):
            await Blobs(LocalStore(tmp_path)).put("file_1", pieces(b"x" * 12_000_000, 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await until(lambda: not list(tmp_path.iterdir()))


async def test_what_killed_processes_left_is_removed_a_day_later(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, age_s in (("file_1", 1e6), ("file_2#1", 1e6), ("file_3#1", 60.0), ("mine#1", 1e6)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    open_blobs(Settings(data=tmp_path))
    assert {each.name for each in folder.iterdir()} == {"file_1", "file_3#1", "mine#1"}


async def test_an_object_store_that_is_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.producer.api.files.blobs.RETRIES", {"max_retries": 0})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "here")
    monkeypatch.delenv("SSL_CERT_DIR")  # set by the tests, empty; this library needs certificates
    blobs = open_blobs(Settings(files_url="s3://bucket/prefix"))
    with pytest.raises(StorageDown, match="object store of files_url"):
        await blobs.put("file_1", pieces(b"x", 1))
    with pytest.raises(StorageDown):
        await whole(blobs, "file_1")


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/y", "s3://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="files_url"):
        open_blobs(Settings(files_url=url))
