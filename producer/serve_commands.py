"""The commands that serve HTTP: `up`, everything in one, and `api`, that part alone.

The server is imported when it is started: no other command should wait until FastAPI is loaded.
"""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.api_keys import Scope, new_key
from models.settings import Settings, SettingsError
from models.tenants import DEFAULT_TENANT
from producer.acting import command_line
from producer.addresses import is_loopback
from producer.cli import (
    Concurrency,
    Config,
    Data,
    plain_errors,
    say,
    settings_for_calls,
    settings_from,
    with_address,
    with_concurrency,
)
from producer.stack import Stack, Workers, open_stack

if TYPE_CHECKING:
    from producer.serving import HttpServer

app = typer.Typer()

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on; default 127.0.0.1.")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Port to listen on; default 8080.")]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 1,
    max_concurrency: Concurrency = None,
    config: Config = None,
    data: Data = None,
) -> None:
    """Serve the HTTP API and work off the queue, all in one: http://127.0.0.1:8080.

    The queue is a server of its own in the data folder unless REDIS_URL is set, the ledger is SQLite there unless
    DATABASE_URL is set. Ctrl-C once finishes what is in flight, twice stops at once. With a --host beyond this machine,
    or a public_url, callers need a key: if there is none, a first one is made and printed, this once.
    """
    with plain_errors():
        settings = with_concurrency(settings_for_calls(config, data), max_concurrency)
        asyncio.run(_up(with_address(settings, host, port), workers, config))


@app.command()
def api(host: Host = None, port: Port = None, config: Config = None, data: Data = None) -> None:
    """Serve the HTTP API alone; `understudy worker` does the work, on this machine or on others.

    It needs REDIS_URL, so that workers can be told, and for more than one machine DATABASE_URL. With a --host beyond
    this machine, or a public_url, callers need a key: if there is none, a first one is made and printed, this once.
    """
    with plain_errors():
        settings = with_address(settings_from(config, data), host, port)
        if settings.redis_url is None:
            raise SettingsError("REDIS_URL is not set: the API alone needs the queue; or start `understudy up`")
        asyncio.run(_api(settings))


async def _up(settings: Settings, count: int, config: Path | None) -> None:
    queue, ledger = _where(settings.redis_url, settings), _where(settings.database_url, settings)
    processes = "1 worker process" if count == 1 else f"{count} worker processes"
    say(f"Starting: the queue ({queue}), the ledger ({ledger}), the HTTP API, {processes}")
    from producer.serving import HttpServer, all_of

    async with open_stack(settings, say) as stack:
        server = HttpServer(settings, stack.store, stack.redis_url)
        async with Workers(stack, count, config, say) as workers:

            def stop() -> None:
                say("Finishing what is in flight" if not server.stopping else "Giving back what is in flight")
                server.stop()
                workers.drain()

            _on_signals(stop)
            await _announce(server, stack, f"with {processes}")
            serving = asyncio.create_task(server.serve())
            working = asyncio.create_task(workers.ended())
            try:
                await all_of(serving, working)
            finally:
                server.stop()
                await serving


def _where(url: str | None, settings: Settings) -> str:
    return f"embedded, in {settings.data}" if url is None else "a server"


async def _api(settings: Settings) -> None:
    say("Starting the HTTP API")
    from producer.serving import HttpServer

    async with open_stack(settings, say) as stack:
        server = HttpServer(settings, stack.store, stack.redis_url)
        _on_signals(server.stop)
        await _announce(server, stack, "without workers of its own")
        await server.serve()


async def _announce(server: "HttpServer", stack: Stack, how: str) -> None:
    say(f"The HTTP API is at {server.url} ({how}; its documentation at {server.url}/docs); Ctrl-C stops")
    if await stack.store.has_api_keys():
        return
    api = stack.settings.api
    if is_loopback(api.host) and api.public_url is None:
        say("No API key exists: callers on this machine need none; `understudy keys create` makes one.")
        return
    made = new_key()
    if await stack.store.add_first_api_key(
        made, tenant=DEFAULT_TENANT, name="first", scopes=[Scope.ADMIN], actor=command_line()
    ):
        where = f"is reached as {api.public_url}" if is_loopback(api.host) else f"listens on {api.host}"
        say(
            f"WARNING: it {where}, but no API key exists: this first one is made for you, may do everything, and is "
            f"shown only now. Everybody needs a key; `understudy keys` makes, lists and revokes them."
        )
        sys.stdout.write(f"{made.text}\n")
        sys.stdout.flush()


def _on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
