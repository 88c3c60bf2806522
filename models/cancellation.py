"""Ending tasks for certain.

Before Python 3.12 `asyncio.wait_for`, which redis-py calls around every command, gives the result instead of the
cancellation when both come in the same moment; calls of PostgreSQL were seen to do so, too. A task in an endless loop
around Redis would then never end; asked again, it does.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

ASK_AGAIN_S = 0.2


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and return when all of them have ended. What they raised is left in them."""
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=ASK_AGAIN_S)


def is_being_ended() -> bool:
    """Whether this task was cancelled, even if what it awaited swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def end_if_cancelled() -> None:
    """Raise CancelledError where what this task awaited may have swallowed it."""
    if is_being_ended():
        raise asyncio.CancelledError
