"""Turns errors of a command into one sentence and an exit code."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from understudy.models.errors import INTERRUPTED, WRONG_USE, UnderstudyError, WrongUse
from understudy.producer.terminal import complain


class Refused(WrongUse):
    """The request cannot be carried out in the current state. The message is one sentence."""


def _complain(sentence: str) -> None:
    complain(f"understudy: {sentence}\n")


@contextmanager
def plain_errors(tell: Callable[[str], None] = _complain) -> Iterator[None]:
    """Turn errors into one sentence and an exit code; defects keep their traceback."""
    try:
        yield
        sys.stdout.flush()  # notice a closed pipe here rather than at interpreter exit
    except UnderstudyError as error:
        tell(str(error))
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        raise  # the reader closed the pipe, as `head` does; typer exits quietly
    except OSError as error:
        if error.filename is None:
            raise
        tell(f"{error.filename}: {(error.strerror or 'cannot be used').lower()}")
        raise typer.Exit(WRONG_USE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
