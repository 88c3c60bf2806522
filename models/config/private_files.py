"""What nobody else on this machine may see: the data folder, and what a process would leave behind when it crashes.

data folder     0700, however it was made, and what is in it 0600 and 0700
core dumps      none: they hold prompts, answers and keys
"""

import logging
import os
import resource
import stat
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER_MODE, FILE_MODE = 0o700, 0o600
OTHERS = 0o077

FILES, FOLDERS = ("ledger.db", "understudy.lock", "redis.runtime"), ("redis", "files", "spool")
"""How the names begin of what we keep in a data folder. A person may keep other things there as well, such as a whole
project: those are left as they are, and so is the folder itself then."""

NO_CORE = 1
"""Bytes of a core dump: too few for any. 0 would not do: Linux still hands the memory to a program that collects dumps,
and 1 is the limit at which it does not."""


def make_private(data: Path) -> None:
    """Make a data folder, or close one that others can look into, and the files in it. Raises OSError."""
    folder = data.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    found = list(folder.iterdir())
    todo = [path for path in found if path.name.startswith(FILES) and _is_open(path)]
    if _is_open(folder) and all(path.name.startswith(FILES + FOLDERS) for path in found):
        todo = [folder, *(path for path in folder.rglob("*") if _is_open(path))]
    if todo:
        _close(todo)
        if found:
            _tell(data, next((path for path in todo if _is_open(path)), None))


def make_private_within(folder: Path) -> None:
    """Make a folder of ours within a data folder, or close it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    if _is_open(folder):
        _close([folder])


def touch_private(file: Path) -> None:
    """Make an empty file that only its owner can read, unless there is one. Raises OSError."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))


def new_file(path: Path, mode: int) -> int:
    """A descriptor of a new file in the place of whatever is there. Raises OSError.

    In a folder that others may write to, what is there may be a link of theirs: it is removed and never followed.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def without_core_dumps() -> None:
    """For this process and those that it starts. Who must have a dump can raise the limit again from outside."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE if hard == resource.RLIM_INFINITY else min(NO_CORE, hard), hard))


def _is_open(path: Path) -> bool:
    """To anybody but its owner. A link never is: what it leads to may be anything."""
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:  # a file of the moment
        return False
    return bool(mode & OTHERS) and not stat.S_ISLNK(mode)


def _close(paths: Iterable[Path]) -> None:
    """What is another user's, or on a disk that knows no permissions, stays as it is."""
    for path in paths:
        with suppress(OSError):
            path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)


@cache
def _tell(folder: Path, left: Path | None) -> None:
    """Once in a process."""
    if left is None:
        log.warning("%s could be read by other users of this machine; from now on only by its owner", folder)
    else:
        log.warning(
            "%s can be read by other users of this machine and could not be closed; choose another folder with --data, "
            "or let its owner run chmod -R go= %s",
            *(left, left),
        )
