"""Limits the size of responses that callers have requested but not yet read, per tenant and in total.

A request without room waits. Waiting requests of one tenant do not block other tenants, and a tenant without unread
responses always gets room for one page.
"""

import asyncio
from asyncio import Future, get_running_loop
from collections import Counter, deque
from contextlib import suppress

MB = 1024 * 1024
ON_DISK = 1024 * MB, 512 * MB
IN_MEMORY = 64 * MB, 32 * MB
"""Bytes for all tenants and for one. IN_MEMORY applies when the disk is nearly full."""


class NoRoom(Exception):
    """This tenant, or all tenants together, have too many unread responses."""


class DeliveryRoom:
    def __init__(self, of_all: int, of_tenant: int, *, always_one: bool) -> None:
        """`always_one`: one page per tenant may exceed `of_all`; otherwise only if no other page is held."""
        self._of_all, self._of_tenant, self._always_one = of_all, of_tenant, always_one
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[int, Future[None]]]] = {}

    @property
    def taken(self) -> int:
        return self._taken.total()

    async def take(self, tenant: str, size: int, wait_s: float | None) -> None:
        """Wait for room for `size` bytes, at most `wait_s` seconds (None: forever). Raises NoRoom."""
        if tenant not in self._waiting and self._fits(tenant, size):
            self._taken[tenant] += size
            return
        turn: Future[None] = get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append((size, turn))
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(turn), wait_s)
        except BaseException:
            self._leave(tenant, size, turn)
            raise
        if not turn.done():
            self._leave(tenant, size, turn)
            raise NoRoom

    def grow(self, tenant: str, more: int) -> None:
        """An admitted page is `more` bytes larger than announced."""
        self._taken[tenant] += more

    def give(self, tenant: str, size: int) -> None:
        self._taken[tenant] -= size
        if not self._taken[tenant]:
            del self._taken[tenant]
        self._let_in()

    def _leave(self, tenant: str, size: int, turn: "Future[None]") -> None:
        if turn.done():  # it was just let in
            self.give(tenant, size)
            return
        self._waiting[tenant].remove((size, turn))
        if not self._waiting[tenant]:
            del self._waiting[tenant]
        self._let_in()

    def _let_in(self) -> None:
        for tenant in list(self._waiting):
            waiting = self._waiting[tenant]
            while waiting and self._fits(tenant, waiting[0][0]):
                size, turn = waiting.popleft()
                self._taken[tenant] += size
                turn.set_result(None)
            if not waiting:
                del self._waiting[tenant]

    def _fits(self, tenant: str, size: int) -> bool:
        of_tenant, of_all = self._taken[tenant], self._taken.total()
        if not (of_tenant if self._always_one else of_all):
            return True
        return of_all + size <= self._of_all and (not of_tenant or of_tenant + size <= self._of_tenant)
