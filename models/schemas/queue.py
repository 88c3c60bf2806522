"""Runs work on callers' JSON schemas outside the event loop: one piece at a time per tenant."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from understudy.models.request.response_format import schema_of
from understudy.models.schemas.process import NoJudge

T = TypeVar("T")

AT_ONCE = 4
"""Tenants served concurrently. The work mostly waits for the process that checks schemas."""


class SchemaTurns:
    """However costly a tenant's schemas are, others wait for at most one piece of its work, never for its queue."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="schemas")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, tenant: str, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work` in a thread and return or raise what it does. Raises NoJudge if no thread can be started."""
        turn = self._turns.setdefault(tenant, asyncio.Lock())
        async with turn:
            try:
                done = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
            except RuntimeError:
                raise NoJudge from None
            return await done

    async def for_request(self, tenant: str, body: Mapping[str, Any], work: Callable[..., T], *arguments: Any) -> T:
        """The same for work on a request or its answer, done at once if the body contains no schema."""
        if schema_of(body.get("response_format")) is None:
            return work(*arguments)
        return await self.run(tenant, work, *arguments)
