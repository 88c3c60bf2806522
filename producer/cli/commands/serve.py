"""The commands that stay until they are stopped: `up`, everything in one, and its parts alone, `api` and `worker`.

The server is imported when it is started: no other command should wait until FastAPI is loaded.
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
    """Serve the HTTP API and work off the queue, all in one: http://127.0.0.1:8080.

    The queue is a server of its own in the data folder unless REDIS_URL is set, the ledger is SQLite there unless
    DATABASE_URL is set. Ctrl-C once finishes what is in flight, twice stops at once. With a --host beyond this machine,
    or a public_url, callers need a key: if there is none, a first one is made and printed, this once.
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
    """Serve the HTTP API alone; `understudy worker` does the work, on this machine or on others.

    It needs REDIS_URL, so that workers can be told, and for more than one machine DATABASE_URL. With a --host beyond
    this machine, or a public_url, callers need a key: if there is none, a first one is made and printed, this once.
    """
    with service(config, data, log_format, log_level, calls=False) as settings:
        if settings.redis_url is None:
            raise SettingsError("REDIS_URL is not set: the API alone needs the queue; or start `understudy up`")
        asyncio.run(_api(with_address(settings, host, port)))


@app.command()
def worker(
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    grace: Annotated[
        float | None, typer.Option("--grace", min=0, help="Seconds that a stopping worker lets its calls finish.")
    ] = None,
    config: options.Config = None,
    data: options.Data = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Work off the queue until stopped; with REDIS_URL and DATABASE_URL as one of many machines.

    Without REDIS_URL the queue is a server of its own in the data folder. SIGTERM (or Ctrl-C) finishes what is in
    flight within the grace period and gives the rest back; twice gives it back at once.
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
    return f"1 worker process of {slots} slots" if count == 1 else f"{count} worker processes of {slots} slots each"


async def _announce(server: "HttpServer", stack: Stack) -> None:
    log.info("The HTTP API is at %s, its documentation at %s/docs; Ctrl-C stops", server.url, server.url)
    if await stack.store.tenants.has_keys():
        return
    api = stack.settings.api
    if is_loopback(api.host) and api.public_url is None:
        log.info("No API key exists: callers on this machine need none; `understudy keys create` makes one")
        return
    made = new_key()
    if await stack.store.tenants.add_first_key(
        made, tenant=DEFAULT_TENANT, name="first", scopes=[Scope.ADMIN], actor=command_line()
    ):
        where = f"is reached as {api.public_url}" if is_loopback(api.host) else f"listens on {api.host}"
        log.warning(
            "It %s, but no API key exists: a first one is made, may do everything, and is written to standard output, "
            "this once. Everybody needs a key; `understudy keys` makes, lists and revokes them",
            where,
        )
        sys.stdout.write(f"{made.text}\n")
        sys.stdout.flush()
