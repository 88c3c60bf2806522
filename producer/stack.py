"""The processes behind `run` and `worker`: the queue, the ledger, and worker processes that are kept alive.

Workers are subprocesses in sessions of their own, so that a Ctrl-C reaches this process only and it decides; they
end by themselves when this process dies, because their standard input is a pipe from it.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from models.ids import new_id
from models.redis_check import check_redis
from models.settings import Settings
from models.store import Store, open_store
from producer.embedded import embedded_redis
from producer.locks import data_lock

TOO_SOON_S = 5.0
TOO_OFTEN = 3
"""A worker that ends by itself so soon after its start, so often in a row, is not started again."""

Say = Callable[[str], None]


class WorkersFailed(Exception):
    """Workers end right after they start. One sentence; what they wrote was shown before."""


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
        if alone and settings.database_url is None:
            await store.rescue_all(clean=True)
            await store.stop_runs()
        yield Stack(settings, url, store)


class Workers:
    """Some worker processes, started again when they die until told to stop."""

    def __init__(self, stack: Stack, count: int, config: Path | None, say: Say) -> None:
        self._stack = stack
        self._count = count
        self._config = config
        self._say = say
        self._processes: set[Process] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> "Workers":
        self._keepers = [asyncio.create_task(self._keep_one()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drain()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def drain(self) -> None:
        """Ask all workers to finish what runs and to end; asked again, they give it back at once."""
        self._stopping = True
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Return when all workers have ended. Raises WorkersFailed when they cannot be kept alive.

        Who stops waiting leaves the workers as they are: not `gather`, which would cancel their keepers with it.
        """
        ended, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in ended:
            keeper.result()

    async def _keep_one(self) -> None:
        failures = 0
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_one()
            if self._stopping:
                return
            failures = failures + 1 if time.monotonic() - began < TOO_SOON_S else 0
            if failures >= TOO_OFTEN:
                raise WorkersFailed(f"workers end right after their start (exit code {code})")
            self._say(f"a worker ended with exit code {code}; starting another")

    async def _run_one(self) -> int:
        settings = self._stack.settings
        command = [sys.executable, "-P", "-m", "worker.main", "--data", str(settings.data), "--exit-with-parent"]
        command += ["--name", new_id("wrk")]
        command += ["--max-concurrency", str(settings.worker.max_concurrency), "--grace", str(settings.worker.grace_s)]
        if self._config is not None:
            command += ["--config", str(self._config)]
        environment = {**os.environ, "REDIS_URL": self._stack.redis_url}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stderr=PIPE, env=environment, start_new_session=True
        )
        self._processes.add(process)
        try:
            if self._stopping:
                process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            async for line in process.stderr:
                self._say(line.decode(errors="replace").rstrip())
            return await process.wait()
        finally:
            self._processes.discard(process)
            if process.returncode is None:
                process.kill()
                await process.wait()
