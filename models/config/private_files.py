"""Keeps data private from other users of the machine: the data folder, and what a crashing process would leave behind.

data folder     0700 however it was created; its contents 0600 and 0700
core dumps      disabled: they contain prompts, answers and keys
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
"""Name prefixes of our own files in a data folder. If the folder also contains other things, such as a whole
project, those keep their permissions, and so does the folder."""

NO_CORE = 1
"""Maximum size of a core dump in bytes: too small for any. 0 would not do: Linux still pipes the memory to a dump
collector, but not at a limit of 1."""


def make_private(data: Path) -> None:
    """Create a data folder, or restrict an existing one and its files to the owner. Raises OSError."""
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
    """Create one of our folders within a data folder, or restrict it to the owner. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    if _is_open(folder):
        _close([folder])


def touch_private(file: Path) -> None:
    """Create an empty file that only its owner can read, unless it exists. Raises OSError."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))


def new_file(path: Path, mode: int) -> int:
    """Open a new file in place of whatever is there and return its descriptor. Raises OSError.

    In a folder writable by others, the existing entry may be a symlink planted by them: it is removed and never
    followed.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def without_core_dumps() -> None:
    """Applies to this process and its children. Where a dump is needed, the limit can be raised from outside."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE if hard == resource.RLIM_INFINITY else min(NO_CORE, hard), hard))


def _is_open(path: Path) -> bool:
    """Whether anyone but its owner has access. Symlinks are never open: their target may be anything."""
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:  # a temporary file
        return False
    return bool(mode & OTHERS) and not stat.S_ISLNK(mode)


def _close(paths: Iterable[Path]) -> None:
    """Files of other users, or on file systems without permissions, stay as they are."""
    for path in paths:
        with suppress(OSError):
            path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)


@cache
def _tell(folder: Path, left: Path | None) -> None:
    """Logs once per process."""
    if left is None:
        log.warning("%s was readable by other users of this machine; it is now readable only by its owner", folder)
    else:
        log.warning(
            "%s is readable by other users of this machine and could not be restricted; choose another folder "
            "with --data, or have its owner run chmod -R go= %s",
            *(left, left),
        )
