"""The Redis that the environment names, shared by tests that run at the same time."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from redis import Redis


@contextmanager
def redis_alone(url: str) -> Iterator[str]:
    """The URL of that Redis database, empty, and for one test at a time, however many processes run tests.

    With REDIS_DATABASES=4 the three databases after it belong to the tests as well, and four of them can run at a time.
    """
    first = Redis.from_url(url).connection_pool.connection_kwargs.get("db", 0)
    numbers = range(first, first + int(os.environ.get("REDIS_DATABASES", "1")))
    with ExitStack() as stack:
        names = [Path(tempfile.gettempdir()) / f"understudy-tests-redis-{number}.lock" for number in numbers]
        files = [stack.enter_context(name.open("w")) for name in names]
        while (number := next((n for n, file in zip(numbers, files, strict=True) if _locked(file)), None)) is None:
            time.sleep(0.1)
        own = url if number == first else urlsplit(url)._replace(path=f"/{number}").geturl()
        with Redis.from_url(own) as connection:
            connection.flushdb()
            yield own
            connection.flushdb()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
