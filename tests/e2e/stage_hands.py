"""What the end-to-end tests need: fake providers, `understudy` processes, the ledger's tables, and patience."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from anyio.from_thread import start_blocking_portal
from commands import Done, type_command
from sqlalchemy import create_engine, make_url, text

from understudy.models.config.settings import load_settings
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.store import open_store
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.runs.runs import accept
from understudy.worker.mock import running_mock

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0
POLL_S = 0.05


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of the condition; fails if there is none in time."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s:g} s: {what}"
        time.sleep(POLL_S)
    return value


class Process:
    """A process in its own session, its output, and its workers."""

    def __init__(self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
        self._words = folder / f"said-{time.monotonic_ns()}.txt"
        with self._words.open("wb") as stream:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**_clean_environment(), **environment},
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def said(self) -> str:
        return self._words.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def until(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """As `until`, while this process runs."""

        def holds() -> Any:
            assert self.running, f"it ended before {what}; it said:\n{self.said}"
            return condition()

        try:
            return until(holds, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.said}") from None

    def workers(self) -> list[int]:
        """The live worker processes that this one has started."""
        return [child.pid for child in self._children() if "understudy.worker" in _command_of(child)]

    def exit_code(self, deadline_s: float = DEADLINE_S) -> int:
        try:
            return self._popen.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s:g} s; it said:\n{self.said}") from None

    def kill_all(self) -> None:
        """SIGKILL the process and everything below it, parents first, so that none of them cleans up."""
        victims = [] if self._popen.poll() is not None else [psutil.Process(self.pid), *self._children()]
        for victim in victims:
            _kill(victim)
        self._popen.wait(timeout=DEADLINE_S)
        psutil.wait_procs(victims, timeout=DEADLINE_S)

    def end(self) -> None:
        self.kill_all()
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def _children(self) -> list[psutil.Process]:
        try:
            return list(psutil.Process(self.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def kill(pid: int) -> None:
    _kill(psutil.Process(pid))


def kill_with_jobs_aboard(run: Process, ledger: "Ledger") -> list[str]:
    """SIGKILL a worker of this run that holds jobs. Returns their ids.

    It is stopped before they are read, because the run takes back a dead worker's jobs, and deletes its row, at once.
    """

    def strike() -> list[str]:
        for pid in run.workers():
            with stopped(pid):
                if aboard := ledger.aboard(pid):
                    kill(pid)
                    return aboard
        return []

    return list(run.until(strike, "a worker holds jobs"))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT afterwards. A process that has ended is left alone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def _clean_environment() -> dict[str, str]:
    """Only the test's own keys and servers."""
    kept = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONPATH", "COVERAGE_PROCESS_START", "SSL_CERT_DIR"}
    return {name: value for name, value in os.environ.items() if name in kept}


class Mock:
    """Fake providers that listen."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self._http = http

    def stats(self) -> dict[str, Any]:
        return dict(self._http.get(f"{self.url}/stats", params={"prompts": "1"}).raise_for_status().json())

    def answered(self) -> int:
        return int(self.stats()["answered"])

    def in_flight(self) -> int:
        return int(self.stats()["in_flight"])

    def times_answered(self) -> Counter[str]:
        """How often each prompt was answered, by the sha256 of its text."""
        return Counter(self.stats()["prompts"])


@contextmanager
def fake_providers(script: str) -> Iterator[Mock]:
    """In a thread of this process, with a script in TOML."""
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(running_mock(tomllib.loads(script))) as mock,
        httpx.Client() as http,
    ):
        yield Mock(mock.url, http)


def digest(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


class Ledger:
    """Reads the tables directly, without the code under test."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(text(sql), values).all())

    def change(self, sql: str, **values: Any) -> None:
        """Change the tables directly, where waiting would take too long."""
        with self._engine.begin() as connection:
            connection.execute(text(sql), values)

    def count(self, sql: str, **values: Any) -> int:
        return int(self.rows(f"SELECT count(*) FROM {sql}", **values)[0][0])

    def states(self) -> Counter[str]:
        return Counter(
            {row.state: row.many for row in self.rows("SELECT state, count(*) many FROM job GROUP BY state")}
        )

    def aboard(self, pid: int) -> list[str]:
        """The jobs that the worker with this process id holds; none while it is not registered."""
        held = "SELECT j.id FROM job j JOIN worker w ON w.id = j.worker_id WHERE j.state = 'running' AND w.pid = :pid"
        return [row.id for row in self.rows(held, pid=pid)]

    def ended(self) -> int:
        return self.count("job WHERE ended_at IS NOT NULL")

    def close(self) -> None:
        self._engine.dispose()


alone_and_on_servers = pytest.mark.parametrize(
    "scene", ["alone", pytest.param("servers", marks=pytest.mark.servers)], indirect=True
)
queue_and_servers = pytest.mark.parametrize(
    "scene", ["queue", pytest.param("servers", marks=pytest.mark.servers)], indirect=True
)

CONFIG = """
[providers.alpha]
kind = "openai"
base_url = "{mock}/alpha/v1"
api_keys = [{{ name = "main", value = "env.ALPHA_KEY" }}]

[providers.beta]
kind = "openai"
base_url = "{mock}/beta/v1"
api_keys = [{{ name = "main", value = "env.BETA_KEY" }}]

[worker]
lease_s = {lease_s}
max_concurrency = {concurrency}
grace_s = {grace_s}
"""


class Scene:
    """One test's folder, configuration, stores and processes."""

    def __init__(self, folder: Path, servers: Mapping[str, str]) -> None:
        self.folder = folder
        self.servers = dict(servers)
        self._runtime = tempfile.TemporaryDirectory(prefix="ut-", dir="/tmp")  # a short name, for sockets
        self.environment = {"ALPHA_KEY": "sk-alpha", "BETA_KEY": "sk-beta", "TMPDIR": self._runtime.name, **servers}
        self.output = folder / "out.jsonl"
        self._processes: list[Process] = []
        self._ledger: Ledger | None = None

    @property
    def full_environment(self) -> dict[str, str]:
        """The environment for a command of this scene that is started by other means."""
        return {**_clean_environment(), **self.environment}

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            file = self.folder / ".understudy" / "ledger.db"
            address = self.servers.get("DATABASE_URL")
            shown = make_url(address).set(drivername="postgresql+psycopg") if address else f"sqlite:///{file}"
            self._ledger = Ledger(shown.render_as_string(hide_password=False) if address else str(shown))
        return self._ledger

    def configure(
        self,
        mock: Mock,
        *,
        lease_s: float = 3.0,
        concurrency: int = 50,
        urgent_slots: int | None = 0,
        grace_s: float = 10.0,
        more: str = "",
    ) -> None:
        """`urgent_slots` None: the usual share is kept from bulk, so that a batch does not take all slots."""
        words = CONFIG.format(mock=mock.url, lease_s=lease_s, concurrency=concurrency, grace_s=grace_s)
        kept = "" if urgent_slots is None else f"urgent_slots = {urgent_slots}\n"
        (self.folder / "understudy.toml").write_text(words + kept + more)

    def write_prompts(self, count: int, *, model: str = "alpha/m", name: str = "in.jsonl", label: str = "") -> Path:
        path = self.folder / name
        lines = [
            {"custom_id": f"{label}line-{number}", "prompt": f"{label}prompt {number}", "model": model}
            for number in range(count)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def start(self, *words: str | Path) -> Process:
        process = Process(words, self.folder, self.environment)
        self._processes.append(process)
        return process

    def type(self, *words: str | Path) -> Done:
        """Run a command of this scene that ends by itself, in this process."""
        return type_command(*words, folder=self.folder, environment=self.full_environment)

    def run(self, source: Path, *options: str) -> Process:
        return self.start(BIN / "understudy", "run", source, "-o", self.output, *options)

    def worker(self, *options: str) -> Process:
        return self.start(BIN / "understudy", "worker", *options)

    def serve(self, command: str = "up", *options: str) -> tuple[Process, str]:
        """`understudy up` (or `api`) on a free port, once it is ready; returns the process and its base URL."""
        process = self.start(BIN / "understudy", command, "--port", "0", *options)
        url = process.until(lambda: re.search(r"http://\S+:\d+", process.said), "the server says where it is")[0]
        with httpx.Client(base_url=url) as http:
            process.until(lambda: _is_ready(http), "the server is ready")
        return process, url

    def submit(self, source: Path) -> str:
        """Accept a file as a batch, as `understudy run` does, without running it. Returns the batch's id."""
        return asyncio.run(self._submit(source))

    async def _submit(self, source: Path) -> str:
        settings = load_settings(self.folder / "understudy.toml", self.environment, self.folder / ".understudy")
        async with open_store(settings.database_url, settings.data) as store:
            batch = NewBatch(new_id("batch"))
            await accept(store, settings, source, Shape(), batch, skip_bad=False)
        return batch.id

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def close(self) -> None:
        for process in self._processes:
            process.end()
        if self._ledger is not None:
            self._ledger.close()
        self._runtime.cleanup()


@contextmanager
def failed_over(scene: Scene) -> Iterator[None]:
    """Cut every connection; new ones may only read."""
    name = make_url(scene.servers["DATABASE_URL"]).database
    with psycopg.connect(scene.servers["DATABASE_URL"], autocommit=True) as connection:

        def turn(words: str) -> None:
            connection.execute(f'ALTER DATABASE "{name}" {words}')
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                [name],
            )

        turn("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            connection.execute("SET default_transaction_read_only = off")
            turn("RESET default_transaction_read_only")
