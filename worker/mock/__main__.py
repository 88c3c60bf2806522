"""Run the fake providers until asked to stop. Exit code 2 for an invalid configuration."""

import argparse
import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import uvloop

from understudy.models.config.errors import SettingsError
from understudy.models.config.private_files import new_file
from understudy.worker.mock.config import MockConfig, load_config
from understudy.worker.mock.server import running_mock


def main() -> int:
    options = _arguments()
    try:
        config = load_config(options.config) if options.config else MockConfig()
        uvloop.run(_serve(config, options))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        sys.stderr.write(f"Cannot listen on {options.host}:{options.port}: {reason}.\n")
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="understudy mock", description="Fake providers with scripted failures.")
    parser.add_argument("--config", type=Path, help="TOML script; without it every request is answered")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8090, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--ready-file", type=Path, help="where to write the URL once it listens")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input closes")
    return parser.parse_args()


def _port(text: str) -> int:
    """Checked here, because the event loop treats 70000 as 4464."""
    if not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return int(text)


async def _serve(config: MockConfig, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    if options.exit_with_parent:
        threading.Thread(target=_until_closed, args=(loop, stop), name="parent", daemon=True).start()
    async with running_mock(config, options.host, options.port) as mock:
        if options.ready_file:
            _announce(options.ready_file, mock.url)
        sys.stderr.write(f"listening on {mock.url}\n")
        sys.stderr.flush()
        await stop.wait()


def _until_closed(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """A thread, because standard input may be a file or a device that no event loop can watch."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def _announce(path: Path, url: str) -> None:
    """Atomic: a process that waits for the file never reads half of it."""
    partial = path.with_name(path.name + ".part")
    try:
        with open(new_file(partial, 0o666), "w", encoding="utf-8") as stream:
            stream.write(url)
        partial.replace(path)
    except OSError as error:
        raise SettingsError(f"The ready file {path} cannot be written: {error.strerror}.") from None


if __name__ == "__main__":
    sys.exit(main())
