"""What is too large to be held in memory for long, on disk until it is needed: in a file without a name, that nobody
else can open and that is gone with its process."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from understudy.models.config.private_files import make_private


def overflow_file(data: Path, parts: Iterable[bytes] = ()) -> IO[bytes]:
    """An empty file in the data folder, or one of these bytes. Raises OSError."""
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
