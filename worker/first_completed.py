"""Run awaitables until the first completes; cancel the rest."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def first_completed(*works: Coroutine[Any, Any, Any]) -> None:
    """Return when one of them completes; the others are cancelled."""
    waits = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def unless(stop: "asyncio.Task[bool]", work: Coroutine[None, None, T], then_s: float = 0.0) -> T | None:
    """The work's result; None if `stop` came first, and the work was still unfinished `then_s` seconds later."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([stop, working], return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and then_s:
            await asyncio.wait([working], timeout=then_s)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
