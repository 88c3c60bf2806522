"""Output for people: with our own colours, and without control characters from others."""

import sys
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from understudy.models.terminal_safe import inert

PIPED_WIDTH = 200
"""Line width in a pipe: long, because nothing there needs wrapped lines."""


class InertConsole(Console):
    """A console that only lets its own control sequences through."""

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
    """Standard output for text from others: unchanged in a pipe or file, without control characters on a terminal."""
    return _Inert(sys.stdout) if sys.stdout.isatty() else sys.stdout


def complain(text: str) -> None:
    """Write to standard error."""
    sys.stderr.write(inert(text))


def page() -> Console:
    """Standard output for people."""
    return InertConsole(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def console() -> Console:
    """Standard error for people; data goes to standard output."""
    return InertConsole(stderr=True, width=None if sys.stderr.isatty() else PIPED_WIDTH)


def say(line: str) -> None:
    """Print one sentence to standard error, without markup."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)
