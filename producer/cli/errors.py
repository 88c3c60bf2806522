"""How a command ends that cannot do what it was asked for."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from understudy.models.errors import OutOfReach, WrongUse
from understudy.producer.exits import INTERRUPTED, UNREACHABLE, WRONG_USE
from understudy.producer.terminal import complain


class Refused(WrongUse):
    """What was asked for cannot be done as things stand. One sentence."""


def _complain(sentence: str) -> None:
    complain(f"understudy: {sentence}\n")


@contextmanager
def plain_errors(tell: Callable[[str], None] = _complain) -> Iterator[None]:
    """A person's mistake or a missing service becomes one sentence and an exit code; a defect keeps its traceback."""
    try:
        yield
        sys.stdout.flush()  # a closed pipe is noticed here, and not while the interpreter ends
    except WrongUse as error:
        tell(str(error))
        raise typer.Exit(WRONG_USE) from None
    except OutOfReach as error:
        tell(str(error))
        raise typer.Exit(UNREACHABLE) from None
    except BrokenPipeError:
        raise  # whoever read our output has seen enough; typer ends quietly
    except OSError as error:
        if error.filename is None:
            raise
        tell(f"{error.filename}: {(error.strerror or 'cannot be used').lower()}")
        raise typer.Exit(WRONG_USE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
