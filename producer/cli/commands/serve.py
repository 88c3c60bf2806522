"""The long-running commands: `api`, `worker`, and `up`, which is both in one.

The server is imported on start, so that the other commands need not load FastAPI.
"""

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.models.api_keys import Scope, new_key
from understudy.models.config.settings import Settings, SettingsError
from understudy.models.logs import relay
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.acting import command_line
from understudy.producer.cli import options
from understudy.producer.cli.services import Ending, LogFormat, LogLevel, service, started
from understudy.producer.cli.settings import with_address, with_concurrency
from understudy.producer.processes.health_file import reporting
from understudy.producer.processes.stack import Stack, Workers, open_stack
from understudy.producer.server.addresses import is_loopback
from understudy.producer.status.cost_text import counted

if TYPE_CHECKING:
    from understudy.producer.server.serving import HttpServer

app = typer.Typer()
log = logging.getLogger(__name__)

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Port to listen on; default 8080.")]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    config: options.Config = None,
    data: options.Data = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Serve the HTTP API and process the queue in one command, at http://127.0.0.1:8080.

    Without REDIS_URL, the queue is an embedded server in the data folder; without DATABASE_URL, the ledger is SQLite
    there. Ctrl-C finishes the calls in flight; a second Ctrl-C stops at once. With a --host other than loopback, or a
    public_url, callers need an API key: if none exists, one is created and printed, only once.
    """
    with service(config, data, log_format, log_level, calls=True) as settings:
        settings = with_concurrency(settings, max_concurrency)
        asyncio.run(_up(with_address(settings, host, port), workers, config))


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    config: options.Config = None,
    data: options.Data = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Serve only the HTTP API; `understudy worker` processes the jobs, on this or other machines.

    Requires REDIS_URL to reach the workers and, for several machines, DATABASE_URL. With a --host other than loopback,
    or a public_url, callers need an API key: if none exists, one is created and printed, only once.
    """
    with service(config, data, log_format, log_level, calls=False) as settings:
        if settings.redis_url is None:
            raise SettingsError(
                "REDIS_URL is not set: the API needs the queue; set it, or start `understudy up` instead"
            )
        asyncio.run(_api(with_address(settings, host, port)))


@app.command()
def worker(
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    grace: Annotated[
        float | None, typer.Option("--grace", min=0, help="Seconds that a stopping worker waits for its calls.")
    ] = None,
    config: options.Config = None,
    data: options.Data = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Process the queue until stopped; with REDIS_URL and DATABASE_URL, on any number of machines.

    Without REDIS_URL, the queue is an embedded server in the data folder. SIGTERM or Ctrl-C finishes the calls in
    flight within the grace period and puts the remaining jobs back; a second signal puts all back at once.
    """
    with service(config, data, log_format, log_level, calls=True) as settings:
        asyncio.run(_work(with_concurrency(settings, max_concurrency, grace), workers, config))


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

            ending = Ending(stop)
            started(stack, f"the HTTP API and {_processes(settings, count)}")
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
        ending = Ending(server.stop)
        started(stack, "the HTTP API, without workers")
        await _announce(server, stack)
        try:
            await server.serve()
        finally:
            log.info("Ended: %s; %s answered", ending, counted(server.answered, "request"))


async def _work(settings: Settings, count: int, config: Path | None) -> None:
    async with open_stack(settings, log.warning) as stack:
        workers = Workers(stack, count, config, log.warning, relay)
        ending = Ending(workers.drain)
        async with reporting(settings.health_file, workers.trouble), workers:
            started(stack, _processes(settings, count))
            try:
                await workers.ended()
            finally:
                log.info("Ended: %s", ending)


def _processes(settings: Settings, count: int) -> str:
    slots = settings.worker.max_concurrency
    return f"1 worker process with {slots} slots" if count == 1 else f"{count} worker processes with {slots} slots each"


async def _announce(server: "HttpServer", stack: Stack) -> None:
    log.info("The HTTP API is at %s, its documentation at %s/docs; Ctrl-C stops it", server.url, server.url)
    if await stack.store.tenants.has_keys():
        return
    api = stack.settings.api
    if is_loopback(api.host) and api.public_url is None:
        log.info("No API key exists: local callers need none; `understudy keys create` creates one")
        return
    made = new_key()
    if await stack.store.tenants.add_first_key(
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
