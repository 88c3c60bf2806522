"""Logs of a service: one line per event, as text or JSON, and nothing that does not belong in a log.

Every line has the time (UTC, ISO 8601, milliseconds), the level, the logger's name, the message, and the ids of the
request, job or batch that it is about, where known (`about`).

Libraries log through the same handler. Only their warnings and errors are written, only the first line of those, and
only type and code locations of an exception: its text may quote a prompt or a secret.
"""

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from understudy.models.api_keys import SHAPE
from understudy.models.config.settings import LogSettings
from understudy.models.terminal_safe import inert

log = logging.getLogger(__name__)

OURS = ("understudy",)
FRAMES = 5
FRAMES_OF_A_DEFECT = 20

_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039  it is never changed

_SECRET_IN_URL = re.compile(r"://\S*@")
_LOG_LINE = re.compile(r'(?:\{"time": ")?\d{4}-\d\d-\d\dT\d\d:')


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Log lines within the block, including those of tasks started there, carry these ids: `request_id`, `job_id`, …"""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def about_many() -> Iterator[None]:
    """Log lines within the block carry no request, job or batch id, whatever started it."""
    token = _about.set({name: value for name, value in _about.get().items() if name == "worker_id"})
    try:
        yield
    finally:
        _about.reset(token)


def configure_logs(settings: LogSettings) -> None:
    """Configure all logging of this process, including uncaught exceptions: to standard error."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.basicConfig(handlers=[log_handler(settings)], level=max(level, logging.WARNING), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # it would print what cannot be formatted verbatim
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def log_handler(settings: LogSettings, stream: TextIO | None = None) -> logging.Handler:
    """Writes lines to a stream; default: standard error."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_attach_ids)
    handler.setFormatter(JsonLines() if settings.format == "json" else TextLines())
    return handler


def raised_at(error: BaseException | None, frames: int = FRAMES) -> str:
    """The type of an exception and the latest calls that led to it, innermost first. Never its text."""
    if error is None:
        return "no exception"
    latest = traceback.extract_tb(error.__traceback__)[-frames:]
    calls = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(latest)]
    return " < ".join([type(error).__name__, *calls])


def relay(line: str) -> None:
    """Relay standard error of a child process of ours: its log lines unchanged, anything else as a warning."""
    if _LOG_LINE.match(line):
        sys.stderr.write(f"{inert(line)}\n")
        sys.stderr.flush()
    elif line.strip():
        log.warning("A worker process wrote: %s", line)


class TextLines(logging.Formatter):
    """`2026-11-30T13:01:28.123+00:00 WARNING worker.job.run Job … is put back [job_id=… batch_id=…]`"""

    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{name}={value}" for name, value in _ids(record).items())
        line = f"{_time(record)} {record.levelname} {record.name} {_message(record)}"
        return _one_line(f"{line} [{ids}]" if ids else line)


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "logger": …, "message": …}`, the ids, and further counts or measurements."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _time(record), "level": record.levelname, "logger": record.name, "message": _message(record)}
        measured: Mapping[str, Any] = getattr(record, "fields", {})
        return _one_line(json.dumps({**head, **_ids(record), **measured}, ensure_ascii=False, default=str))


def _attach_ids(record: logging.LogRecord) -> bool:
    record.about = _about.get()
    return True


def _ids(record: logging.LogRecord) -> Mapping[str, str]:
    ids: Mapping[str, str] = getattr(record, "about", {})
    return ids


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.name.partition(".")[0] not in OURS:
        text = text.strip().partition("\n")[0]
    if record.exc_info and record.exc_info[1] is not None:
        text += f": {raised_at(record.exc_info[1], FRAMES_OF_A_DEFECT)}"
    text = SHAPE.sub(r"us_\1_***", _SECRET_IN_URL.sub("://***@", text))
    return inert(text)


def _one_line(text: str) -> str:
    """A line feed smuggled into a message must not start a new log line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _uncaught(_kind: type[BaseException], error: BaseException | None, _traceback: TracebackType | None) -> None:
    log.critical("Uncaught exception: %s", raised_at(error, FRAMES_OF_A_DEFECT))
