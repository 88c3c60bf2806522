"""The embedded Redis in daily use: killed, left behind, restarted on damaged data."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.queue.redis_check import QueueUnavailable
from understudy.producer.processes import embedded
from understudy.producer.processes.data_folder_lock import DataFolderBusy, data_lock
from understudy.producer.processes.embedded import PID_NAME, embedded_redis

DEADLINE_S = 15.0

RUNS_A_SERVER = """
import asyncio, sys
from pathlib import Path
from redis.asyncio import Redis
from understudy.producer.processes.embedded import embedded_redis

async def main():
    async with embedded_redis(Path(sys.argv[1])) as url:
        async with Redis.from_url(url) as redis:
            await redis.set("kept", "yes")
        print(url, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def server_pid(data: Path) -> int:
    """0 while a new server writes its file, or after an old one has removed it."""
    try:
        return int((data / "redis" / PID_NAME).read_text() or 0)
    except FileNotFoundError:
        return 0


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_owner(data: Path) -> tuple[subprocess.Popen[str], str]:
    """A process of its own that runs an embedded server; returns when it answers."""
    owner = subprocess.Popen([sys.executable, "-c", RUNS_A_SERVER, str(data)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    return owner, owner.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    """By SIGKILL, so that it cannot clean up."""
    process.kill()
    process.communicate()


def guard_of(pid: int) -> psutil.Process:
    guard = psutil.Process(pid).parent()
    assert guard is not None and "embedded_guard.py" in " ".join(guard.cmdline())
    return guard


async def test_what_was_queued_is_there_again_after_a_clean_restart(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as url, Redis.from_url(url) as redis:
        await redis.rpush("queue", "job_1", "job_2")
        config = await redis.config_get("maxmemory-policy", "appendonly", "appendfsync")
        assert config == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
        pid = server_pid(tmp_path)
    assert is_gone(pid)
    async with embedded_redis(tmp_path) as url, Redis.from_url(url, decode_responses=True) as redis:
        assert await redis.lrange("queue", 0, -1) == ["job_1", "job_2"]


async def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as url:
        socket = Path(url.removeprefix("unix://").split("?")[0])
        assert socket.exists()
        assert socket.parent.stat().st_mode & 0o077 == 0
    assert not socket.parent.exists()


async def test_a_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path):
        pid = server_pid(tmp_path)
        assert os.getpgid(pid) != os.getpgid(0)
        assert os.getsid(pid) != os.getsid(0)


async def test_the_server_dies_with_a_killed_owner_and_keeps_its_data(tmp_path: Path) -> None:
    owner, url = start_owner(tmp_path)
    pid = server_pid(tmp_path)
    end(owner)
    await until(lambda: is_gone(pid))
    socket = Path(url.removeprefix("unix://").split("?")[0])
    await until(lambda: not socket.parent.exists())
    async with embedded_redis(tmp_path) as again, Redis.from_url(again) as redis:
        assert await redis.get("kept") == b"yes"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to the death of its parent")
async def test_the_server_dies_when_even_its_guard_is_killed_and_the_next_start_tidies_up(tmp_path: Path) -> None:
    owner, url = start_owner(tmp_path)
    pid = server_pid(tmp_path)
    guard = guard_of(pid)
    owner.send_signal(signal.SIGSTOP)
    try:
        guard.kill()
        await until(lambda: is_gone(pid))
    finally:
        end(owner)
    left = Path(url.removeprefix("unix://").split("?")[0]).parent
    assert left.exists()
    async with embedded_redis(tmp_path):
        assert not left.exists()


async def test_an_orphan_in_the_folder_is_stopped_before_a_new_server_starts(tmp_path: Path) -> None:
    home = tmp_path / "redis"
    home.mkdir()
    socket = tmp_path / "s"
    arguments = embedded._arguments(home, socket, home / "server.log")
    orphan = subprocess.Popen([str(embedded._binary()), *arguments])
    try:
        await until(socket.exists)
        async with embedded_redis(tmp_path) as url, Redis.from_url(url) as redis:
            assert orphan.wait(timeout=DEADLINE_S) == 0
            assert await redis.ping()
            assert server_pid(tmp_path) != orphan.pid
    finally:
        orphan.kill()
        orphan.wait()


async def test_a_stranger_with_the_number_of_an_old_server_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", "input('up')"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout is not None and stranger.stdout.read(2) == b"up"
        (tmp_path / "redis" / PID_NAME).write_text(f"{stranger.pid}\n")
        async with embedded_redis(tmp_path):
            assert stranger.poll() is None
        stranger.kill()


async def test_a_server_that_dies_is_started_again_at_the_same_address(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as url:
        async with Redis.from_url(url) as redis:
            await redis.set("kept", "yes")
            await redis.config_set("appendfsync", "always")
            await redis.set("synced", "yes")
        first = server_pid(tmp_path)
        os.kill(first, signal.SIGKILL)
        await until(lambda: is_gone(first))
        await until(lambda: server_pid(tmp_path) not in (0, first))
        assert await eventually_get(url, "kept") == b"yes"


async def test_a_server_that_is_killed_again_and_again_is_always_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LONGEST_PAUSE_S", 0.01)
    async with embedded_redis(tmp_path) as url:
        for _ in range(9):
            pid = server_pid(tmp_path)
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: is_gone(pid) and server_pid(tmp_path) not in (0, pid))
        async with Redis.from_url(url) as redis:
            await redis.set("kept", "yes")
        assert await eventually_get(url, "kept") == b"yes"


async def test_a_guard_that_is_killed_is_replaced_with_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LONGEST_PAUSE_S", 0.01)
    async with embedded_redis(tmp_path) as url:
        async with Redis.from_url(url) as redis:
            await redis.set("kept", "yes")
        for _ in range(3):
            pid = server_pid(tmp_path)
            guard_of(pid).kill()
            await until(lambda pid=pid: is_gone(pid) and server_pid(tmp_path) not in (0, pid))
            assert await eventually_get(url, "kept") == b"yes"


async def test_a_server_that_does_not_start_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "LONGEST_PAUSE_S", 0.01)
    async with embedded_redis(tmp_path) as url:
        really_start = embedded._Server.start
        failures = iter([QueueUnavailable("its log says why"), OSError("Too many open files")])

        async def start(server: embedded._Server) -> None:
            for failure in failures:
                raise failure
            await really_start(server)

        monkeypatch.setattr(embedded._Server, "start", start)
        first = server_pid(tmp_path)
        os.kill(first, signal.SIGKILL)
        await until(lambda: is_gone(first) and server_pid(tmp_path) not in (0, first))
        assert await eventually_get(url, "kept") is None
    assert "its log says why" in caplog.text and "Too many open files" in caplog.text


async def eventually_get(url: str, key: str) -> object:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            async with Redis.from_url(url, socket_timeout=2) as redis:
                return await redis.get(key)
        except RedisError:
            assert time.monotonic() < deadline, "it did not answer in time"
            await asyncio.sleep(0.02)


async def _fill(data: Path) -> Path:
    async with embedded_redis(data) as url, Redis.from_url(url) as redis:
        for number in range(100):
            await redis.set(f"key-{number}", "x" * 100)
    return next((data / "redis" / "appendonlydir").glob("*.incr.aof"))


async def test_a_cut_tail_costs_only_the_tail(tmp_path: Path) -> None:
    file = await _fill(tmp_path)
    os.truncate(file, file.stat().st_size - 7)
    async with embedded_redis(tmp_path) as url, Redis.from_url(url) as redis:
        assert await redis.dbsize() == 99


async def test_damaged_data_are_set_aside_and_the_server_starts_empty(tmp_path: Path) -> None:
    file = await _fill(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"*3\r\n$3\r\nSET", b"*3\r\n?!\r\nSET", 50) + content)
    async with embedded_redis(tmp_path) as url, Redis.from_url(url) as redis:
        assert await redis.dbsize() == 0
    aside = next(tmp_path.glob("redis.unreadable-*"))
    assert list(aside.glob("appendonlydir/*.aof"))


async def test_a_damaged_manifest_is_set_aside_too(tmp_path: Path) -> None:
    file = await _fill(tmp_path)
    next(file.parent.glob("*.manifest")).write_text("no manifest\n")
    async with embedded_redis(tmp_path) as url, Redis.from_url(url) as redis:
        assert await redis.dbsize() == 0


async def test_a_long_data_path_does_not_hinder_it(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 20) / ("longer" * 20)
    async with embedded_redis(data) as url, Redis.from_url(url) as redis:
        assert await redis.ping()


async def test_a_machine_without_a_binary_is_told_to_set_redis_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    with pytest.raises(QueueUnavailable, match="set REDIS_URL"):
        async with embedded_redis(tmp_path):
            pass


LOCKS_A_FOLDER = """
import sys, time
from pathlib import Path
from understudy.producer.processes.data_folder_lock import data_lock

with data_lock(Path(sys.argv[1]), ["/usr/bin/understudy", "run", "secret-prompt.txt"]):
    print("locked", flush=True)
    time.sleep(600)
"""


async def test_a_second_owner_of_the_data_folder_is_refused_by_name_of_the_first(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", LOCKS_A_FOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    try:
        with (
            pytest.raises(DataFolderBusy, match=rf"'understudy run' \(process {holder.pid}, since 20"),
            data_lock(tmp_path),
        ):
            pass
    finally:
        end(holder)
    with data_lock(tmp_path, ["understudy", "up"]):
        assert json.loads((tmp_path / "understudy.lock").read_text())["pid"] == os.getpid()
