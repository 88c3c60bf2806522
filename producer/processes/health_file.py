"""Whether a service works: a file that it writes every second, and the command that reads it.

The command that keeps the workers writes it, because it alone knows how many there should be and sees which of them
give no sign. One that is stopped, hangs or is dead writes nothing, and the file grows old.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

EVERY_S = 1.0
OLD_S = 10.0
"""Who has not written for so long does not work."""

WELL = "all is well"


@asynccontextmanager
async def reporting(file: Path | None, trouble: Callable[[], str | None] = lambda: None) -> AsyncIterator[None]:
    """Write every second what `trouble` says is wrong, a sentence, or that nothing is; remove the file at the end."""
    if file is None:
        yield
        return
    task = asyncio.create_task(_report(file, trouble), name="health")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
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
    """Who reads it meanwhile reads a whole sentence."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(sentence)
    new.replace(file)


def verdict(file: Path, now: float) -> tuple[bool, str]:
    """Whether the service that writes this file works, and a sentence."""
    try:
        age_s, said = now - file.stat().st_mtime, file.read_text()
    except FileNotFoundError:
        return False, f"nothing that works writes {file}: it has not begun, or has ended"
    except (OSError, UnicodeDecodeError) as error:
        return False, f"{file} cannot be read: {getattr(error, 'strerror', 'it is no text')}"
    if age_s > OLD_S:
        return False, f"what writes {file} has not done so for {age_s:.0f} s: it hangs, is stopped or is gone"
    return said == WELL, said


def tell(file: Path) -> int:
    """The exit code of `understudy health`."""
    well, sentence = verdict(file, time.time())
    sys.stdout.write(f"{sentence}\n")
    return 0 if well else 1
