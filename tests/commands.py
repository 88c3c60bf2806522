"""Commands of `understudy`, run inside the test process, so that the interpreter and its imports are paid for once.

Standard streams, the environment, the working folder and the exit code are the command's own, as in a process. Tests
about a process itself (signals, pipes, how it starts) start one.
"""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from understudy.producer.cli.app import app


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


def type_command(*words: str | Path, folder: Path, environment: Mapping[str, str], stdin: str = "") -> Done:
    """Run `understudy WORDS` in that folder, with only that environment. A bug in the command raises here."""
    streams = [_stream(stdin), _stream(), _stream()]
    with _surroundings(["understudy", *map(str, words)], folder, environment, streams):
        code = _exit_code()
    return Done(code, _written(streams[1]), _written(streams[2]))


def _exit_code() -> int:
    try:
        app()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0


@contextmanager
def _surroundings(
    arguments: list[str], folder: Path, environment: Mapping[str, str], streams: list[io.TextIOWrapper]
) -> Iterator[None]:
    kept = sys.argv, sys.stdin, sys.stdout, sys.stderr, Path.cwd(), dict(os.environ)
    sys.argv, (sys.stdin, sys.stdout, sys.stderr) = arguments, streams
    _set_environment(environment)
    os.chdir(folder)
    try:
        yield
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr, before, variables = kept
        os.chdir(before)
        _set_environment(variables)


def _set_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _stream(text: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="\n", write_through=True)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
