"""What the long-running commands share: logging and signal handling."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from understudy.models.config.settings import Settings
from understudy.models.logs import configure_logs
from understudy.models.queue.redis_check import shown_url
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.settings import settings_from
from understudy.producer.found_config import told_of
from understudy.producer.processes.stack import Stack

log = logging.getLogger(__name__)

LogFormat = Annotated[
    Literal["text", "json"] | None, typer.Option("--log-format", help="Format of log lines; default text.")
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None,
    typer.Option("--log-level", help="Lowest level to log; default info."),
]


@contextmanager
def service(
    config: Path | None, data: Path | None, log_format: LogFormat, log_level: LogLevel, *, calls: bool
) -> Iterator[Settings]:
    """The settings of a long-running command. From here on it reports through its log, including fatal errors. `calls`:
    the command calls providers, so warnings about a configuration found in the working folder come first."""
    with plain_errors():
        settings = _with_log(settings_from(config, data), log_format, log_level)
        configure_logs(settings.logging)
    with plain_errors(log.critical):
        for sentence in told_of(settings, config, os.environ) if calls else ():
            log.warning(sentence.removeprefix("WARNING: "))
        yield settings


def _with_log(settings: Settings, log_format: LogFormat, log_level: LogLevel) -> Settings:
    given = {name: word for name, word in (("format", log_format), ("level", log_level)) if word is not None}
    return settings.model_copy(update={"logging": settings.logging.model_copy(update=given)})


def started(stack: Stack, what: str) -> None:
    """Log the start, with the ledger and queue in use; passwords are masked."""
    queue = f"embedded, in {stack.settings.data}" if stack.settings.redis_url is None else shown_url(stack.redis_url)
    log.info("Started Understudy %s: %s; ledger %s, queue %s", version("understudy"), what, stack.store.place, queue)


class Ending:
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
