"""Asyncio primitives: gather small requests into one, and wait for the first of several."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from understudy.models.logs import about_many

Item = TypeVar("Item")
Answer = TypeVar("Answer")
T = TypeVar("T")


class Coalescer(Generic[Item, Answer]):
    """Turns many small requests into one: items are gathered for a few milliseconds and handled together.

    Calls `handle` with up to `max_items` items at once and returns to each waiter its answer.

    A batch is sent when it is full or `max_delay_s` after its first item (0: at the end of the event loop's iteration),
    but while `at_once` of them are in progress it waits, and grows up to `max_items`. If `handle` raises, each of its
    waiters gets the exception; a cancelled waiter does not affect others, its item is still handled.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_items: int,
        max_delay_s: float,
        at_once: int | None = None,
    ) -> None:
        self._handle = handle
        self._max_items = max_items
        self._max_delay_s = max_delay_s
        self._at_once = at_once
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._timer: asyncio.Handle | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def add(self, item: Item) -> Answer:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, answer))
        if len(self._waiting) >= self._max_items:
            self._send()
        elif self._timer is None:
            later = loop.call_later(self._max_delay_s, self._send) if self._max_delay_s else loop.call_soon(self._send)
            self._timer = later
        return await answer

    async def close(self) -> None:
        """Handle waiting items and return when everything was handled."""
        while self._waiting or self._under_way:
            self._send()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def abandon(self) -> None:
        """Abort what is in progress, and handle nothing more: its waiters are cancelled."""
        for _, waiter in self._waiting:
            waiter.cancel()
        self._waiting.clear()
        for task in self._under_way:
            task.cancel()

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and (self._at_once is None or len(self._under_way) < self._at_once):
            batch, self._waiting = self._waiting[: self._max_items], self._waiting[self._max_items :]
            task = asyncio.create_task(self._run(batch))
            self._under_way.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        held_up = self._at_once is not None and len(self._under_way) >= self._at_once
        self._under_way.discard(task)
        if held_up:
            self._send()

    async def _run(self, batch: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        try:
            with about_many():
                answers = await self._handle([item for item, _ in batch])
        except BaseException as error:
            for _, waiter in batch:
                if not waiter.done():
                    waiter.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, waiter), answer in zip(batch, answers, strict=True):
            if not waiter.done():
                waiter.set_result(answer)


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
