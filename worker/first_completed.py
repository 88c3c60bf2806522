"""Waiting for the first of several things, and leaving none of the others behind."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def first_completed(*works: Coroutine[Any, Any, Any]) -> None:
    """Return when one of them is done; the others are cancelled."""
    waits = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def unless(stop: "asyncio.Task[bool]", work: Coroutine[None, None, T], then_s: float = 0.0) -> T | None:
    """The work's result; None when `stop` came before, and `then_s` seconds later it was still not done."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([stop, working], return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and then_s:
            await asyncio.wait([working], timeout=then_s)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
