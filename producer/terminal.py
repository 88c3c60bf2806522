"""What people see: in colours of ours, and without control characters of others."""

import sys
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from understudy.models.terminal_safe import inert

PIPED_WIDTH = 200
"""In a pipe lines are long, because nothing there wraps them better than we would."""


class InertConsole(Console):
    """Only what it writes itself moves a cursor or has a colour."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=inert(segment.text))


class Writes(Protocol):
    def write(self, text: str, /) -> object: ...


class _Inert:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> object:
        return self._stream.write(inert(text))


def output() -> Writes:
    """Standard output for what others wrote: as it is in a pipe or a file, inert on a terminal."""
    return _Inert(sys.stdout) if sys.stdout.isatty() else sys.stdout


def complain(text: str) -> None:
    """To standard error."""
    sys.stderr.write(inert(text))


def page() -> Console:
    """Standard output for people."""
    return InertConsole(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def console() -> Console:
    """For people; data goes to standard output."""
    return InertConsole(stderr=True, width=None if sys.stderr.isatty() else PIPED_WIDTH)


def say(line: str) -> None:
    """One sentence for people, as it is."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)
