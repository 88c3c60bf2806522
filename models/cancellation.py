"""Cancel tasks and wait until they have really stopped.

Before Python 3.12 `asyncio.wait_for`, which redis-py uses around every command, returns the result instead of raising
the cancellation when both happen at the same moment; PostgreSQL calls were seen to do so, too. A task in an endless
loop around Redis would then never end; cancelled again, it does.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

ASK_AGAIN_S = 0.2


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and return when all of them have ended. Their exceptions stay in them."""
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=ASK_AGAIN_S)


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run these in tasks of this name while the block runs."""
    tasks = [asyncio.create_task(work, name=name) for work in works]
    try:
        yield
    finally:
        await end(tasks)


def is_being_ended() -> bool:
    """Whether this task was cancelled, even if the awaited call swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def end_if_cancelled() -> None:
    """Raise CancelledError if the awaited call may have swallowed it."""
    if is_being_ended():
        raise asyncio.CancelledError
