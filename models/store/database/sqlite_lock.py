"""The write lock of an SQLite file, shared fairly by processes and by the tasks of a process."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from understudy.models.store.errors import StoreBusy

POLL_S = 0.001


class WriteLock:
    """Held for the duration of one write transaction.

    Waiters hold the turnstile, so a process that has just written must queue behind them before writing again:
    otherwise a busy process takes the lock back before another one wakes up. Waiting polls, because a blocking flock
    can be neither cancelled nor timed out.
    """

    def __init__(self, database: Path, timeout_s: float) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._tasks = asyncio.Lock()
        self._had_turn_at = 0.0
        self._turnstile = os.open(f"{database}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises StoreBusy if the lock is not acquired within the timeout, for all tasks that have waited that long
        at once."""
        asked_at = time.monotonic()
        async with self._tasks:
            deadline = max(asked_at, self._had_turn_at) + self._timeout_s
            await self._take(self._turnstile, deadline)
            try:
                await self._take(self._lock, deadline)
            finally:
                fcntl.flock(self._turnstile, fcntl.LOCK_UN)
            try:
                yield
            finally:
                self._had_turn_at = time.monotonic()
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turnstile)
        os.close(self._lock)

    async def _take(self, descriptor: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreBusy(
                        f"another process has been writing to {self._database} for {self._timeout_s:g} s; "
                        "stop it if it hangs, or try again"
                    ) from None
            await asyncio.sleep(POLL_S)
