"""The installation under a chaos run, kept alive by a supervisor like an operator's."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from chaos_servers import OwnPostgres, OwnRedis, free_port
from sqlalchemy.exc import SQLAlchemyError
from stage_hands import BIN, Ledger, Mock, Process, Scene, stopped, until

from understudy.producer.queue_access import running_redis

CONCURRENCY = 40
LEASE_S = 5.0
REVIVE_S = 0.5
ANSWERS = {"latency_s": {"kind": "lognormal", "median": 0.15, "sigma": 0.6}}
LASTING_RULES = [{"message": "content that no provider takes", "fail": "content_filter"}]
CONFIGURED = """
[chains.both]
steps = ["alpha/m", "beta/m"]

[providers.alpha.prices.m]
input = 1000
output = 2000

[providers.beta.prices.m]
input = 3000
output = 4000
"""


class World:
    """Processes by name. Each is restarted when it ends, until `rest_in_peace`."""

    def __init__(self, scene: Scene, mock: Mock) -> None:
        self.scene = scene
        self.mock = mock
        self.in_flight_at_kills = 0
        self.log: list[str] = []
        self._began = time.monotonic()
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._starters: dict[str, Callable[[], Process]] = {}
        self.processes: dict[str, Process] = {}
        self._ends = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        scene.configure(mock, lease_s=LEASE_S, concurrency=CONCURRENCY, urgent_slots=None, more=CONFIGURED)
        self.script([])

    def start(self) -> None:
        for name, starter in self._starters.items():
            self.processes[name] = starter()
        self._keeper.start()

    def rest_in_peace(self) -> None:
        """Restart nothing from now on."""
        self._ends.set()
        self._keeper.join(30)

    def note(self, words: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:6.1f} s  {words}")

    def script(self, rules: list[dict[str, Any]]) -> None:
        """What the fake providers do from now on, in addition to their usual behaviour."""
        document = {"rules": [*LASTING_RULES, *rules], "answers": ANSWERS}
        httpx.post(f"{self.mock.url}/config", json=document, timeout=30).raise_for_status()

    def open_jobs(self) -> int:
        return self.ledger.count("job WHERE ended_at IS NULL")

    @property
    def ledger(self) -> Ledger:
        return self.scene.ledger

    def workers(self) -> list[int]:
        return [pid for process in self.processes.values() if process.running for pid in process.workers()]

    def kill_workers(self, pids: Sequence[int]) -> None:
        """Each is stopped first, because the jobs of a dead worker are taken back at once and could not be counted."""
        for pid in pids:
            with self.suspended(pid), suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        with ExitStack() as stack:
            for pid in self.workers():
                stack.enter_context(self.suspended(pid))
            for process in list(self.processes.values()):
                process.kill_all()

    @contextmanager
    def suspended(self, pid: int) -> Iterator[None]:
        with stopped(pid):
            self._count_in_flight(pid)
            yield

    def _count_in_flight(self, pid: int) -> None:
        """Their calls may be paid for again. If the ledger cannot be asked, all slots of the worker count."""
        try:
            self.in_flight_at_kills += len(self.ledger.aboard(pid))
        except SQLAlchemyError:
            self.in_flight_at_kills += CONCURRENCY

    def _keep(self) -> None:
        while not self._ends.wait(REVIVE_S):
            for name, starter in self._starters.items():
                if not self.processes[name].running:
                    self.note(f"{name} is started again")
                    self.processes[name] = starter()


class Alone(World):
    """Everything on one data folder: embedded queue, SQLite."""

    def __init__(self, scene: Scene, mock: Mock) -> None:
        super().__init__(scene, mock)
        words = (BIN / "understudy", "up", "--port", str(self._port), "--workers", "2")
        self._starters = {"up": partial(scene.start, *words)}

    @property
    def up(self) -> Process:
        return self.processes["up"]

    @property
    def ledger_file(self) -> Path:
        return self.scene.folder / ".understudy" / "ledger.db"

    def queue_url(self) -> str | None:
        return running_redis(self.scene.folder / ".understudy")


class Servers(World):
    """One API and three workers on a Redis and a PostgreSQL, each behind a proxy."""

    def __init__(self, scene: Scene, mock: Mock, redis: OwnRedis, postgres: OwnPostgres) -> None:
        super().__init__(scene, mock)
        self.redis = redis
        self.postgres = postgres
        self._straight = Ledger(postgres.straight_url.replace("postgresql://", "postgresql+psycopg://"))
        api = (BIN / "understudy", "api", "--port", str(self._port))
        self._starters = {"api": partial(scene.start, *api)}
        self._starters |= {f"worker {number}": scene.worker for number in (1, 2, 3)}

    @property
    def ledger(self) -> Ledger:
        return self._straight

    @property
    def api(self) -> Process:
        return self.processes["api"]

    def rest_in_peace(self) -> None:
        super().rest_in_peace()
        self._straight.close()


def wait_until_ready(world: World) -> None:
    def answers() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{world.url}/readyz").status_code == 200
        return False

    until(answers, "the API is ready", 60)
