"""Data too large to hold in memory for long, on disk until it is needed: in an unnamed file that no one else can
open and that disappears with its process."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from understudy.models.config.private_files import make_private


def overflow_file(data: Path, parts: Iterable[bytes] = ()) -> IO[bytes]:
    """A file in the data folder, empty or with these bytes. Raises OSError."""
    make_private(data)
    file = tempfile.TemporaryFile(dir=data, buffering=0)
    try:
        for part in parts:
            append(file, part)
    except BaseException:
        file.close()
        raise
    return file


def append(file: IO[bytes], part: bytes) -> None:
    """Raises OSError."""
    left = memoryview(part)
    while left:
        left = left[file.write(left) :]
