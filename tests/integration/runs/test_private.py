"""Who else on this machine can read a data folder, and what a crashed process leaves."""

import asyncio
import os
import resource
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from understudy.models.config import private_files as private
from understudy.models.config.private_files import make_private, new_file, without_core_dumps
from understudy.models.config.settings import Settings
from understudy.models.jobs.views import OutputRow
from understudy.models.state import JobState
from understudy.models.store import open_store
from understudy.producer.api.files.blobs import open_blobs
from understudy.producer.processes.data_folder_lock import data_lock
from understudy.producer.processes.embedded import embedded_redis
from understudy.producer.runs.output import write_output


@pytest.fixture(autouse=True)
def lax_umask() -> Iterator[None]:
    kept = os.umask(0o000)
    yield
    os.umask(kept)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that everyone may read."""
    tmp_path.chmod(0o755)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat(follow_symlinks=False).st_mode)


def open_ones(folder: Path) -> list[str]:
    """The paths in a folder that others could read if they could enter it."""
    found = [folder, *folder.rglob("*")]
    return sorted(str(path) for path in found if not path.is_symlink() and mode(path) & 0o077)


async def one_chunk() -> AsyncIterator[bytes]:
    yield b"{}\n"


async def a_ledger(data: Path) -> None:
    async with open_store(None, data) as store:
        await store.api_keys.exist()
        assert {path.name for path in data.iterdir()} >= {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
        assert open_ones(data) == []


async def an_upload(data: Path) -> None:
    await open_blobs(Settings(data=data)).put("file_1", one_chunk())


async def a_lock(data: Path) -> None:
    with data_lock(data):
        assert open_ones(data) == []


async def a_queue(data: Path) -> None:
    async with embedded_redis(data) as url, Redis.from_url(url) as redis:
        await redis.set("a", 1)
        assert open_ones(data) == []


@pytest.mark.parametrize("made_by", [a_ledger, an_upload, a_lock, a_queue])
async def test_a_data_folder_is_its_owners_alone_whatever_makes_it(made_by, place: Path) -> None:  # type: ignore[no-untyped-def]
    await made_by(place / "new" / "data")
    assert open_ones(place / "new" / "data") == []


@pytest.mark.parametrize("then", [a_ledger, an_upload, a_lock, a_queue])
async def test_an_open_folder_of_an_older_version_is_closed_and_its_owner_is_told(
    then,  # type: ignore[no-untyped-def]
    place: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = place / "data"
    (data / "files").mkdir(parents=True)
    (data / "redis" / "appendonlydir").mkdir(parents=True)
    for name in ("files/file_0", "redis/appendonlydir/a.aof", "understudy.lock"):
        (data / name).write_text("")
    await then(data)
    assert open_ones(data) == []
    (warning,) = caplog.messages
    assert str(data) in warning and "was readable by other users" in warning


async def test_a_folder_that_is_already_closed_causes_no_warning(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        await a_ledger(place / "data")
    (place / "empty").mkdir()
    await a_ledger(place / "empty")
    assert caplog.messages == [] and open_ones(place / "empty") == []


async def test_in_a_folder_of_other_things_only_our_files_are_closed(place: Path) -> None:
    for name in ("ledger.db", "ledger.db-wal", "report.csv", "run.sh"):
        (place / name).write_text("")
    (place / "run.sh").chmod(0o755)
    (place / "link").symlink_to(place / "run.sh")
    make_private(place)
    assert [mode(place / name) for name in ("ledger.db", "ledger.db-wal")] == [0o600, 0o600]
    assert [mode(each) for each in (place, place / "report.csv", place / "run.sh")] == [0o755, 0o666, 0o755]


async def test_what_a_link_leads_to_is_left_alone(place: Path) -> None:
    (place / "data").mkdir()
    (place / "elsewhere").write_text("")
    (place / "data" / "ledger.db-wal").symlink_to(place / "elsewhere")
    make_private(place / "data")
    assert (mode(place / "data"), mode(place / "elsewhere")) == (0o700, 0o666)


async def test_a_folder_that_cannot_be_closed_is_used_and_named(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "data").mkdir()
    (place / "data" / "ledger.db").write_text("")
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # as disks without permissions do
    for _ in range(2):
        make_private(place / "data")
    (warning,) = caplog.messages
    assert "could not be restricted" in warning and "chmod" in warning


async def lines() -> AsyncIterator[OutputRow]:
    yield OutputRow(
        *("job_1", "a", 1, JobState.SUCCEEDED, 200, '{"choices": []}', None, "p", "m", 0.0, None),
    )


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
async def test_an_output_is_not_written_through_a_link(name: str, place: Path) -> None:
    victim = place / "victim"
    victim.write_text("mine")
    (place / f"{name}.part").symlink_to(victim)
    assert await write_output(lines(), place / name) == 1
    assert victim.read_text() == "mine" and not (place / name).is_symlink()


@pytest.mark.parametrize(("before", "after"), [(None, 0o644), (0o600, 0o600), (0o640, 0o640)])
async def test_who_may_read_an_output_stays_as_it_was(before: int | None, after: int, place: Path) -> None:
    os.umask(0o022)
    if before is not None:
        (place / "out.jsonl").touch()
        (place / "out.jsonl").chmod(before)
    await write_output(lines(), place / "out.jsonl")
    assert mode(place / "out.jsonl") == after


def test_a_new_file_takes_the_place_of_what_a_killed_process_left(place: Path) -> None:
    (place / "out.part").write_text("half")
    os.close(new_file(place / "out.part", 0o600))
    assert (place / "out.part").read_text() == "" and mode(place / "out.part") == 0o600


async def test_the_embedded_queue_knows_no_key_of_a_provider(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("MY_OWN_SECRET", "canary")
    async with embedded_redis(place / "data"):
        family = psutil.Process().children(recursive=True)
        known = [name for process in family for name in await asyncio.to_thread(process.environ)]
    assert len(family) >= 2 and {"OPENAI_API_KEY", "MY_OWN_SECRET"}.isdisjoint(known)


@pytest.mark.parametrize("module", ["understudy", "understudy.worker"])
def test_our_processes_leave_no_core_dump(module: str, place: Path) -> None:
    """The program whose environment is checked is one of the process's own children."""
    script = (
        "import resource, sys, runpy, understudy.models.config.private_files as private\n"
        "private.without_core_dumps = lambda real=private.without_core_dumps: "
        "(real(), print(resource.getrlimit(resource.RLIMIT_CORE)[0]), sys.exit())\n"
        f"runpy.run_module('{module}', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=place, timeout=60)
    assert done.stdout in ("1\n", "0\n"), done.stderr


@pytest.mark.parametrize(("hard", "soft"), [(resource.RLIM_INFINITY, 1), (0, 0), (4096, 1)])
def test_the_limit_of_core_dumps_is_one_that_stops_them(hard: int, soft: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = []
    monkeypatch.setattr(private.resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(private.resource, "setrlimit", lambda _, limits: set_to.append(limits))
    without_core_dumps()
    assert set_to == [(soft, hard)]
