"""Ensures that one `run`, `up` or `worker` at a time uses the data folder."""

import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from understudy.models.config.private_files import make_private, touch_private
from understudy.models.errors import WrongUse
from understudy.models.store.errors import folder_reason

LOCK_NAME = "understudy.lock"


class DataFolderBusy(WrongUse):
    """Another process is using this data folder. The message is one sentence that names it."""


@contextmanager
def data_lock(data: Path, command: Sequence[str] | None = None) -> Iterator[None]:
    """Lock the data folder while the block runs. Raises DataFolderBusy naming the holder, WrongUse.

    The kernel releases the lock when its holder dies, in whatever way. The file stays: removing it would let a third
    process lock another file of the same name.
    """
    with _opened(data) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderBusy(
                f"{data} is in use by {_holder(file)}; wait for it, stop it, or choose another folder with --data"
            ) from None
        _write_holder(file, command if command is not None else sys.argv)
        yield


def _opened(data: Path) -> IO[str]:
    try:
        make_private(data)
        touch_private(data / LOCK_NAME)
        return (data / LOCK_NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise WrongUse(
            f"the data folder {data} cannot be used ({folder_reason(error)}); choose another with --data"
        ) from None


def _write_holder(file: IO[str], command: Sequence[str]) -> None:
    # only the program and its subcommand: arguments may be prompts
    words = [Path(word).name if index == 0 else word for index, word in enumerate(command[:2])]
    file.truncate(0)
    file.write(json.dumps({"pid": os.getpid(), "command": shlex.join(words), "since": time.time()}))
    file.flush()


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"'{holder['command']}' (process {holder['pid']}, since {since})"
    except (ValueError, KeyError, TypeError):  # it has just locked the file and not written its name yet
        return "another process"
