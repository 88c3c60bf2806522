"""The asyncio RQ worker: registration, the claim loop, signals, side tasks, draining.

understudy worker                                                        the friendly way
rq worker -w understudy.worker.main.AsyncWorker interactive normal bulk   the same, by RQ's command line
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import redis.exceptions
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.retry import Retry

from understudy.models.cancellation import end
from understudy.models.config.settings import LogSettings, Settings, SettingsError, load_settings
from understudy.models.errors import UNREACHABLE, WRONG_USE
from understudy.models.ids import new_id
from understudy.models.jobs.execution import Settled
from understudy.models.logs import about, configure_logs, raised_at
from understudy.models.queue.keys import QUEUES
from understudy.models.queue.redis_check import shown_url
from understudy.models.store import Store, StoreOutage, open_store
from understudy.models.unsaved_outcomes import keep, replay
from understudy.worker.background import Upkeep
from understudy.worker.heartbeat import Heartbeat, show_life, show_well
from understudy.worker.job.claim_loop import ClaimLoop
from understudy.worker.resources import WorkerResources, open_toolbox, worker_row
from understudy.worker.rq.bridge import Bridge, Shutdown, StopJob
from understudy.worker.rq.worker import RECONNECT, RegisteredWorker

log = logging.getLogger(__name__)

SIGN_OFF_S = 2.0
SHOWN = 300


class AsyncWorker(RegisteredWorker):
    """An `rq` worker that keeps `max_concurrency` jobs in flight in one event loop."""

    settings: Settings | None = None
    with_parent = False
    alive: int | None = None

    async def main(self, redis: Redis, bridge: Bridge, *, burst: bool) -> int:
        settings = self.settings or load_settings(None, os.environ)
        with about(worker_id=self.name):
            async with open_toolbox(settings, redis, self.name, settings.worker.max_concurrency) as box:
                return await Shift(self.name, box, bridge, self.with_parent, self.alive).work(burst=burst)


class Shift:
    """One worker's life from registering in the ledger to signing off."""

    def __init__(
        self, worker_id: str, box: WorkerResources, bridge: Bridge, with_parent: bool, alive: int | None = None
    ) -> None:
        """`alive`: the pipe for signs of life."""
        self._worker_id = worker_id
        self._box = box
        self._bridge = bridge
        self._with_parent = with_parent
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._why = "there was nothing left to do"
        worker = box.settings.worker
        self._grace_s, self._lease_s, self._concurrency = worker.grace_s, worker.lease_s, worker.max_concurrency
        well = (lambda: None) if alive is None else partial(show_well, alive)
        self._heartbeat = Heartbeat(self._open_beat, self._lease_s, self._missed_beat, well=well)
        self._claims = ClaimLoop(
            *(worker_id, bridge, box.store, box.tools, self._concurrency, box.announcer.tell),
            urgent_slots=worker.urgent_slots,
            lease_runs=self._heartbeat.lease_runs,
        )
        self._upkeep = Upkeep(worker_id, box, bridge, self._claims, self._heartbeat.in_touch)

    async def work(self, *, burst: bool) -> int:
        """Returns how many jobs were settled. Raises what killed a background loop, after draining."""
        self._listen_to_signals()
        kept = False
        await replay(self._box.settings.data, self._box.store)
        await self._register(self._box.store)
        self._heartbeat.start()
        self._log_worker_start()
        side_tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(task, name=name) for name, task in self._side_tasks()
        ]
        for task in side_tasks:
            task.add_done_callback(self._side_task_ended)
        try:
            try:
                await self._claims.run(self._stopping, refill=self._upkeep.planner.pass_once if burst else None)
            finally:
                kept = await self._keep(await self._claims.drain(self._grace_s, self._hurry))
            await self._upkeep.resign()
        finally:
            await end(side_tasks)
            await self._box.deliverer.close()
            await asyncio.to_thread(self._heartbeat.stop)
            if not kept:  # otherwise kept outcomes would be returned before they are replayed, and their jobs run again
                await self._sign_off()
            ended, put_back = self._claims.done - self._claims.put_back, self._claims.put_back
            log.info("Ended: %s; jobs done: %d, put back: %d", self._why, ended, put_back)
        for task in side_tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return self._claims.done

    def _log_worker_start(self) -> None:
        """With what it is connected to; contains no password."""
        urls = self._box.store.place, shown_url(self._box.settings.redis_url or "")
        where = "Started Understudy %s: a worker of %d slots; ledger %s, queue %s"
        log.info(where, version("understudy"), self._concurrency, *urls)

    def _stop(self, why: str) -> None:
        """Drain; the first caller's reason counts."""
        if not self._stopping.is_set():
            self._why = why
            log.info("Draining, %s; jobs in flight: %d, grace: %g s", why, len(self._claims.runs), self._grace_s)
            self._stopping.set()

    def _missed_beat(self) -> None:
        self._upkeep.lost_the_ledger()

    async def _keep(self, outcomes: Sequence[Settled]) -> bool:
        """Save in the data folder what the ledger did not accept. False: there is nothing to save, or it failed."""
        if not outcomes:
            return False
        settings, store = self._box.settings, self._box.store
        try:
            await asyncio.to_thread(keep, settings.data, store.place, self._worker_id, outcomes)
        except OSError as error:
            why = error.strerror
            log.error(
                "%d jobs will run again, their outcomes cannot be saved in %s: %s", len(outcomes), settings.data, why
            )
            return False
        log.warning("%d outcomes are kept in %s until the next start there", len(outcomes), settings.data)
        self._claims.settler.abandon()
        return True

    def _side_tasks(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        tasks: list[tuple[str, Coroutine[None, None, None]]] = [
            ("upkeep", self._upkeep.run()),
            ("commands", self._obey()),
            ("heartbeat", self._heartbeat.watch()),
        ]
        if self._with_parent:
            tasks.append(("parent", self._leave_with_parent()))
        return tasks

    def _side_task_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("Side task %s died: %s; this worker drains", task.get_name(), raised_at(task.exception()))
            self._stop(f"side task {task.get_name()} died")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        """The first signal drains, the second returns jobs at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stop(f"stopped by {number.name}")

    async def _obey(self) -> None:
        async for command in self._bridge.commands():
            match command:
                case StopJob(job_id):
                    await self._cancel(job_id)
                case Shutdown():
                    self._stop("stopped by RQ's shutdown command")

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._box.store.jobs.cancel(job_id)
        except StoreOutage as outage:
            log.warning(
                "Job %s was not cancelled, the ledger is unavailable (%s); try again", job_id, type(outage).__name__
            )
        else:
            self._claims.cancel(job_id)

    async def _leave_with_parent(self) -> None:
        """Standard input is a pipe from the parent; its end means the parent has exited."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        log.warning("The parent process has exited; this worker stops")
        self._stop("its parent process has exited")
        self._hurry.set()

    async def _register(self, store: Store) -> None:
        await store.workers.register(worker_row(self._worker_id, self._concurrency), self._lease_s)

    async def _sign_off(self) -> None:
        """Otherwise the lease expires by itself, and what this worker held is rescued then."""
        try:
            async with asyncio.timeout(SIGN_OFF_S):
                await self._box.store.workers.remove(self._worker_id)
        except (StoreOutage, TimeoutError) as outage:
            log.warning("This worker could not sign off in the ledger: %s", type(outage).__name__)

    async def _open_beat(self, stack: AsyncExitStack) -> Callable[[], Awaitable[None]]:
        """Runs in the heartbeat's thread and loop, with a connection of its own."""
        settings = self._box.settings
        store = await stack.enter_async_context(open_store(settings.database_url, settings.data))

        async def beat() -> None:
            if not await store.workers.beat(self._worker_id, self._lease_s):
                log.warning("This worker's lease was lost and its jobs were taken back; it registers again")
                await self._register(store)

        return beat


def main() -> None:
    """The process behind `understudy worker`."""
    parser = argparse.ArgumentParser(prog="understudy worker")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--name", default=None)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--grace", type=float)
    parser.add_argument("--burst", action="store_true")
    parser.add_argument("--exit-with-parent", action="store_true")
    parser.add_argument("--log-format", choices=get_args(LogSettings.model_fields["format"].annotation))
    parser.add_argument("--log-level", choices=get_args(LogSettings.model_fields["level"].annotation))
    parser.add_argument("--alive", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alive is not None:
        show_life(arguments.alive)
    try:
        settings = _with_options(load_settings(arguments.config, os.environ, arguments.data), arguments)
    except SettingsError as error:
        sys.stderr.write(f"understudy worker: {error}\n")
        sys.exit(WRONG_USE)
    configure_logs(settings.logging)
    if settings.redis_url is None:
        sys.exit(_complain("REDIS_URL is not set: a separate worker needs the address of Redis", WRONG_USE))
    AsyncWorker.settings, AsyncWorker.with_parent = settings, arguments.exit_with_parent
    AsyncWorker.alive = arguments.alive
    connection = SyncRedis.from_url(settings.redis_url, retry=Retry(*RECONNECT))
    try:
        worker = AsyncWorker(list(QUEUES), name=arguments.name or new_id("wrk"), connection=connection)
        worker.work(burst=arguments.burst, logging_level="WARNING")
    except StoreOutage as error:
        sys.exit(_complain(error, UNREACHABLE))
    except redis.exceptions.ConnectionError:
        sys.exit(_complain("Redis cannot be reached; check REDIS_URL and that it is running", UNREACHABLE))
    except redis.exceptions.ResponseError as error:
        sys.exit(_complain(f"Redis rejects a worker's commands: {error}"[:SHOWN], UNREACHABLE))


def _with_options(settings: Settings, arguments: argparse.Namespace) -> Settings:
    work = {"max_concurrency": arguments.max_concurrency, "grace_s": arguments.grace}
    logs = {"format": arguments.log_format, "level": arguments.log_level}
    return settings.model_copy(
        update={
            "worker": settings.worker.model_copy(update=_given(work)),
            "logging": settings.logging.model_copy(update=_given(logs)),
        }
    )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _complain(error: object, code: int) -> int:
    log.critical("%s", error)
    return code


if __name__ == "__main__":
    main()
