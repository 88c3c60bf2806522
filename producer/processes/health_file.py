"""Health of a service: a file that it writes every second, and the command that reads it.

The command that supervises the workers writes it, because it alone knows how many there should be and which ones show
no sign of life. If the command is stopped, hangs or is dead, the file grows stale.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from understudy.models.cancellation import running

log = logging.getLogger(__name__)

EVERY_S = 1.0
OLD_S = 10.0
"""Seconds after which a file that was not updated counts as unhealthy."""

WELL = "all is well"


@asynccontextmanager
async def reporting(file: Path | None, trouble: Callable[[], str | None] = lambda: None) -> AsyncIterator[None]:
    """Write every second the sentence returned by `trouble`, or that all is well; remove the file at the end."""
    if file is None:
        yield
        return
    try:
        async with running(_report(file, trouble), name="health"):
            yield
    finally:
        with suppress(OSError):
            file.unlink()


async def _report(file: Path, trouble: Callable[[], str | None]) -> None:
    told = False
    while True:
        try:
            _write(file, trouble() or WELL)
        except OSError as error:
            if not told:
                log.warning("The health file %s cannot be written: %s", file, error.strerror)
            told = True
        await asyncio.sleep(EVERY_S)


def _write(file: Path, sentence: str) -> None:
    """Atomic: readers always see a complete sentence."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(sentence)
    new.replace(file)


def verdict(file: Path, now: float) -> tuple[bool, str]:
    """Whether the service that writes this file is healthy, and a sentence."""
    try:
        age_s, said = now - file.stat().st_mtime, file.read_text()
    except FileNotFoundError:
        return False, f"{file} does not exist: the service has not started, or has ended"
    except (OSError, UnicodeDecodeError) as error:
        return False, f"{file} cannot be read: {getattr(error, 'strerror', 'it is not text')}"
    if age_s > OLD_S:
        return False, f"{file} has not been updated for {age_s:.0f} s: the service hangs, is stopped or is gone"
    return said == WELL, said


def tell(file: Path) -> int:
    """The exit code of `understudy health`."""
    well, sentence = verdict(file, time.time())
    sys.stdout.write(f"{sentence}\n")
    return 0 if well else 1
