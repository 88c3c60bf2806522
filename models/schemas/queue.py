"""Work that a caller's JSON schema shapes, beside an event loop: one piece at a time for each tenant."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from understudy.models.request.response_format import schema_of
from understudy.models.schemas.process import NoJudge

T = TypeVar("T")

AT_ONCE = 4
"""Tenants whose work is under way. It mostly waits for the process that checks schemas."""


class SchemaTurns:
    """However costly a tenant's schemas are, others wait for one piece of its work and never for a queue of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="schemas")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, tenant: str, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` returns or raises; it runs in a thread. Raises NoJudge where none can be started."""
        turn = self._turns.setdefault(tenant, asyncio.Lock())
        async with turn:
            try:
                done = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
            except RuntimeError:
                raise NoJudge from None
            return await done

    async def for_request(self, tenant: str, body: Mapping[str, Any], work: Callable[..., T], *arguments: Any) -> T:
        """The same for work on a request or on its answer, which is done at once where the body asks for no schema."""
        if schema_of(body.get("response_format")) is None:
            return work(*arguments)
        return await self.run(tenant, work, *arguments)
