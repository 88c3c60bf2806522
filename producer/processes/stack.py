"""The processes behind `run`, `up` and `worker`: the queue, the ledger, and supervised worker processes.

Workers are subprocesses in their own sessions, so that Ctrl-C reaches only this process, which decides; they end when
this process dies, because their standard input is a pipe from it.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from understudy.models.cancellation import end
from understudy.models.config.settings import Settings
from understudy.models.ids import new_id
from understudy.models.queue.redis_check import check_redis
from understudy.models.store import Store, StoreError, open_store
from understudy.models.unsaved_outcomes import replay
from understudy.producer.number_format import counted
from understudy.producer.processes.data_folder_lock import data_lock
from understudy.producer.processes.embedded import embedded_redis
from understudy.producer.processes.health_file import OLD_S
from understudy.producer.processes.supervision import Losses, Restarts, Watch, how_it_ended

LONGEST_LINE = 1024 * 1024
"""Maximum length of a line of worker output, in bytes."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stack:
    settings: Settings
    redis_url: str
    store: Store


@asynccontextmanager
async def open_stack(settings: Settings, say: Say) -> AsyncIterator[Stack]:
    """The queue and the ledger. Without REDIS_URL the data folder is locked and an embedded server is started.

    Raises DataFolderBusy, QueueUnavailable, StoreUnavailable.
    """
    async with AsyncExitStack() as stack:
        alone = settings.redis_url is None
        if alone:
            stack.enter_context(data_lock(settings.data))
        url = settings.redis_url
        if url is None:
            url = await stack.enter_async_context(embedded_redis(settings.data))
        for warning in await check_redis(url):
            say(warning)
        store = await stack.enter_async_context(open_store(settings.database_url, settings.data))
        await replay(settings.data, store)
        if alone and settings.database_url is None:
            await store.workers.rescue_all()
            await store.runs.stop_all()
        yield Stack(settings, url, store)


class Workers:
    """Worker processes that are restarted when they die, until stopped."""

    def __init__(self, stack: Stack, count: int, config: Path | None, say: Say, relay: Say | None = None) -> None:
        """`say` receives messages about the workers, `relay` each line of their logs (default: `say`)."""
        self._stack = stack
        self._count = count
        self._config = config
        self._say = say
        self._relay = relay or say
        self._processes: set[Process] = set()
        self._watches: set[Watch] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._losses = Losses(count)
        self._began = time.monotonic()

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    async def __aenter__(self) -> "Workers":
        self._keepers = [asyncio.create_task(self._keep_one()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drain()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def trouble(self) -> str | None:
        """Which workers show no sign of life, as a sentence; None: all do."""
        since = time.monotonic() - OLD_S
        well = sum(watch.well_at > since for watch in self._watches)
        if self._stopping or well >= self._count:
            return None
        return (
            f"only {well} of {counted(self._count, 'worker')} renewed the lease and ran all loops within {OLD_S:g} s: "
            "the others are starting, hang or are stopped, or the ledger is unreachable"
        )

    def drain(self) -> None:
        """Ask all workers to finish their jobs and exit; asked again, they put the jobs back at once.

        The second request is another signal, because two pending signals of the same kind would merge into one.
        """
        number = signal.SIGINT if self._stopping else signal.SIGTERM
        self._stop.set()
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(number)

    async def ended(self) -> None:
        """Return when all workers have ended. Raises WorkersFailed when they cannot be kept running.

        Cancelling this leaves the workers running, unlike `gather`, which would cancel their supervisors.
        """
        ended, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in ended:
            keeper.result()

    async def _keep_one(self) -> None:
        restarts = Restarts()
        while not self._stopping:
            name, began = new_id("wrk"), time.monotonic()
            code = await self._run_one(name)
            lived_s = time.monotonic() - began
            held, anything_ended = await self._take_back(name)
            if self._stopping:
                return
            self._losses.add(code, held, anything_ended)
            pause_s = restarts.pause_s(code, lived_s, held)
            self._say(f"a worker ended {how_it_ended(code)}; {_what_follows(held, pause_s)}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause_s)

    async def _take_back(self, name: str) -> tuple[int, bool]:
        """The number of jobs the ended worker still had, and whether any worker has finished a job since we started.
        The jobs are due at once; results it spooled are written first."""
        store = self._stack.store
        try:
            await replay(self._stack.settings.data, store)
            held = await store.workers.rescue_one(name)
            return held, await store.workers.has_ended_jobs(time.monotonic() - self._began)
        except (StoreError, OSError):
            return 0, False  # its lease then expires by itself

    async def _run_one(self, name: str) -> int:
        """Run a worker until it ends. Returns its exit code."""
        with Watch(self._stack.settings.worker.lease_s) as watch:
            process = await self._start(name, watch)
            self._processes.add(process)
            self._watches.add(watch)
            watching = asyncio.create_task(watch.end_if_it_hangs(process.pid, self._say), name="watch")
            try:
                if self._stopping:
                    process.send_signal(signal.SIGTERM)
                assert process.stderr is not None
                async for line in process.stderr:
                    self._relay(line.decode(errors="replace").rstrip())
                return await process.wait()
            finally:
                self._processes.discard(process)
                self._watches.discard(watch)
                await end([watching])
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _start(self, name: str, watch: Watch) -> Process:
        settings = self._stack.settings
        command = [sys.executable, "-P", "-m", "understudy.worker", "--data", str(settings.data), "--exit-with-parent"]
        command += ["--name", name, "--alive", str(watch.writes)]
        command += ["--max-concurrency", str(settings.worker.max_concurrency), "--grace", str(settings.worker.grace_s)]
        command += ["--log-format", settings.logging.format, "--log-level", settings.logging.level]
        if self._config is not None:
            command += ["--config", str(self._config)]
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stderr=PIPE,
                pass_fds=[watch.writes],
                limit=LONGEST_LINE,
                env={**os.environ, "REDIS_URL": self._stack.redis_url},
                start_new_session=True,
            )
        finally:
            watch.is_given_away()


def _what_follows(held: int, pause_s: float) -> str:
    jobs = {0: "", 1: "its job will run again; "}.get(held, f"its {held:,} jobs will run again; ")
    return f"{jobs}starting another{f' in {pause_s:g} s' if pause_s else ''}"
