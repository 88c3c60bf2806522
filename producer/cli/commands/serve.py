"""The long-running commands: `api`, `worker`, and `up`, which is both in one.

The server is imported on start, so that the other commands need not load FastAPI.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from understudy.models.api_keys import Scope, new_key
from understudy.models.config.settings import Settings, SettingsError
from understudy.models.logs import configure_logs, relay
from understudy.models.queue.redis_check import shown_url
from understudy.models.tenants import DEFAULT_TENANT
from understudy.models.this_machine import is_loopback
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.installation import Installation, with_options
from understudy.producer.found_config import warnings_about
from understudy.producer.number_format import counted
from understudy.producer.processes.health_file import reporting
from understudy.producer.processes.stack import Stack, Workers, open_stack

if TYPE_CHECKING:
    from understudy.producer.server.serving import HttpServer

app = options.Commands()
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service(Installation):
    """The options of a long-running command."""

    log_format: Annotated[
        Literal["text", "json"] | None, typer.Option("--log-format", help="Format of log lines; default text.")
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option("--log-level", help="Lowest level to log; default info."),
    ] = None

    @contextmanager
    def logged(self, *, calls: bool) -> Iterator[Settings]:
        """The settings of the command. From here on it reports through its log, including fatal errors. `calls`: it
        calls providers, so warnings about a configuration found in the working folder come first."""
        with plain_errors():
            settings = with_options(self.settings(), "logging", format=self.log_format, level=self.log_level)
            configure_logs(settings.logging)
        with plain_errors(log.critical):
            for sentence in warnings_about(settings, self.config, os.environ) if calls else ():
                log.warning(sentence.removeprefix("WARNING: "))
            yield settings


BY_DEFAULT = Service()
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Port to listen on; default 8080.")]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    service: Service = BY_DEFAULT,
) -> None:
    """Serve the HTTP API and process the queue in one command, at http://127.0.0.1:8080.

    Without REDIS_URL, the queue is an embedded server in the data folder; without DATABASE_URL, the ledger is SQLite
    there. Ctrl-C finishes the calls in flight; a second Ctrl-C stops at once. With a --host other than loopback, or a
    public_url, callers need an API key: if none exists, one is created and printed, only once.
    """
    with service.logged(calls=True) as settings:
        settings = with_options(settings, "worker", max_concurrency=max_concurrency)
        asyncio.run(_up(with_options(settings, "api", host=host, port=port), workers, service.config))


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    service: Service = BY_DEFAULT,
) -> None:
    """Serve only the HTTP API; `understudy worker` processes the jobs, on this or other machines.

    Requires REDIS_URL to reach the workers and, for several machines, DATABASE_URL. With a --host other than loopback,
    or a public_url, callers need an API key: if none exists, one is created and printed, only once.
    """
    with service.logged(calls=False) as settings:
        if settings.redis_url is None:
            raise SettingsError(
                "REDIS_URL is not set: the API needs the queue; set it, or start `understudy up` instead"
            )
        asyncio.run(_api(with_options(settings, "api", host=host, port=port)))


@app.command()
def worker(
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    grace: Annotated[
        float | None, typer.Option("--grace", min=0, help="Seconds that a stopping worker waits for its calls.")
    ] = None,
    service: Service = BY_DEFAULT,
) -> None:
    """Process the queue until stopped; with REDIS_URL and DATABASE_URL, on any number of machines.

    Without REDIS_URL, the queue is an embedded server in the data folder. SIGTERM or Ctrl-C finishes the calls in
    flight within the grace period and puts the remaining jobs back; a second signal puts all back at once.
    """
    with service.logged(calls=True) as settings:
        settings = with_options(settings, "worker", max_concurrency=max_concurrency, grace_s=grace)
        asyncio.run(_work(settings, workers, service.config))


def _log_start(stack: Stack, what: str) -> None:
    """Log the start, with the ledger and queue in use; passwords are masked."""
    queue = f"embedded, in {stack.settings.data}" if stack.settings.redis_url is None else shown_url(stack.redis_url)
    log.info("Started Understudy %s: %s; ledger %s, queue %s", version("understudy"), what, stack.store.place, queue)


class _Ending:
    """Why a long-running command ended: the signals it received."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop` is called on each signal: the first lets calls in flight finish, the second puts their jobs back."""
        self._stop = stop
        self._signals: list[str] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        doing = "Putting back the jobs in flight" if self._signals else "Finishing the jobs in flight"
        self._signals.append(signal.Signals(number).name)
        log.info("%s: %s", self._signals[-1], doing)
        self._stop()

    def __str__(self) -> str:
        return f"stopped by {' and '.join(self._signals)}" if self._signals else "not by a signal"


async def _up(settings: Settings, count: int, config: Path | None) -> None:
    log.info("Starting the HTTP API and %s", _processes(settings, count))
    from understudy.producer.server.serving import HttpServer, all_of

    async with open_stack(settings, log.warning) as stack:
        server = HttpServer(settings, stack.store, stack.redis_url)
        workers = Workers(stack, count, config, log.warning, relay)
        async with reporting(settings.health_file, workers.trouble), workers:

            def stop() -> None:
                server.stop()
                workers.drain()

            ending = _Ending(stop)
            _log_start(stack, f"the HTTP API and {_processes(settings, count)}")
            await _announce(server, stack)
            serving = asyncio.create_task(server.serve())
            working = asyncio.create_task(workers.ended())
            try:
                await all_of(serving, working)
            finally:
                server.stop()
                await serving
                log.info("Ended: %s; %s answered", ending, counted(server.answered, "request"))


async def _api(settings: Settings) -> None:
    log.info("Starting the HTTP API")
    from understudy.producer.server.serving import HttpServer

    async with open_stack(settings, log.warning) as stack, reporting(settings.health_file):
        server = HttpServer(settings, stack.store, stack.redis_url)
        ending = _Ending(server.stop)
        _log_start(stack, "the HTTP API, without workers")
        await _announce(server, stack)
        try:
            await server.serve()
        finally:
            log.info("Ended: %s; %s answered", ending, counted(server.answered, "request"))


async def _work(settings: Settings, count: int, config: Path | None) -> None:
    async with open_stack(settings, log.warning) as stack:
        workers = Workers(stack, count, config, log.warning, relay)
        ending = _Ending(workers.drain)
        async with reporting(settings.health_file, workers.trouble), workers:
            _log_start(stack, _processes(settings, count))
            try:
                await workers.ended()
            finally:
                log.info("Ended: %s", ending)


def _processes(settings: Settings, count: int) -> str:
    slots = settings.worker.max_concurrency
    return f"1 worker process with {slots} slots" if count == 1 else f"{count} worker processes with {slots} slots each"


async def _announce(server: "HttpServer", stack: Stack) -> None:
    log.info("The HTTP API is at %s, its documentation at %s/docs; Ctrl-C stops it", server.url, server.url)
    if await stack.store.api_keys.exist():
        return
    api = stack.settings.api
    if is_loopback(api.host) and api.public_url is None:
        log.info("No API key exists: local callers need none; `understudy keys create` creates one")
        return
    made = new_key()
    if await stack.store.api_keys.add_first(
        made, tenant=DEFAULT_TENANT, name="first", scopes=[Scope.ADMIN], actor=command_line()
    ):
        where = f"is reached as {api.public_url}" if is_loopback(api.host) else f"listens on {api.host}"
        log.warning(
            "The HTTP API %s, but no API key existed: created one with scope `admin` and printed it to standard "
            "output, only once. Every caller needs a key; `understudy keys` creates, lists and revokes them",
            where,
        )
        sys.stdout.write(f"{made.text}\n")
        sys.stdout.flush()
