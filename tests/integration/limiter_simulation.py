"""A provider with an unknown limit, and jobs that want more than it gives: how well is the limit used?

Time is simulated, Redis is real: python tests/integration/limiter_simulation.py [redis URL]
"""

import asyncio
import heapq
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

import redis.asyncio

from understudy.models.failure import Scope
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant
from understudy.worker.limits.limiter import Limiter

BEGIN_MS = 1_800_000_000_000.0
LATENCY_MS = 300.0
LOOK_AGAIN_MS = 50.0
"""How long after a refusal's announced time a job is there again."""

UNTOLD = Candidate(Deployment("alpha", "large", "main", "alpha:main"))


@dataclass
class StrictServer:
    """A token bucket of one second."""

    per_minute: float
    level: float = 0.0
    at_ms: float = BEGIN_MS
    answered: int = 0
    refused: int = 0
    hint_s: float | None = None

    def __post_init__(self) -> None:
        self.level = self.size

    @property
    def size(self) -> float:
        return max(self.per_minute / 60, 1.0)

    def admits(self, now_ms: float) -> bool:
        self.level = min(self.size, self.level + (now_ms - self.at_ms) * self.per_minute / 60_000)
        self.at_ms = now_ms
        if self.level < 1.0 - 1e-9:
            self.refused += 1
            return False
        self.level -= 1
        self.answered += 1
        return True


@dataclass
class RandomServer:
    """Refuses a share of the calls, whatever the rate. `per_minute`: what it would answer if calls never paused."""

    share: float
    per_minute: float
    hint_s: float | None = None
    answered: int = 0
    refused: int = 0
    chance: Random = field(default_factory=lambda: Random(1))

    def admits(self, now_ms: float) -> bool:
        admitted = self.chance.random() >= self.share
        self.answered += admitted
        self.refused += not admitted
        return admitted


@dataclass(frozen=True)
class Use:
    """Shares of what the server would have given, and of the calls that it refused."""

    used: float
    refused: float


class Simulation:
    """`slots` jobs at a time ask again as soon as they may, forever."""

    def __init__(
        self, limiter: Limiter, server: StrictServer | RandomServer, slots: int, candidate: Candidate = UNTOLD
    ) -> None:
        self._limiter = limiter
        self._server = server
        self._candidate = candidate
        self._order = count()
        self._events: list[tuple[float, int, str, Grant | None, bool]] = []
        for slot in range(slots):
            self._at(BEGIN_MS + slot * 0.1, "ask")

    def _at(self, ms: float, what: str, grant: Grant | None = None, admitted: bool = False) -> None:
        heapq.heappush(self._events, (ms, next(self._order), what, grant, admitted))

    async def run_until(self, seconds: float, each_call: Callable[[float], None] = lambda _: None) -> Use:
        """Continue until `seconds` after the beginning; the shares cover the time since the last call of this."""
        began_ms, before = self._events[0][0], (self._server.answered, self._server.refused)
        while self._events[0][0] < BEGIN_MS + seconds * 1000:
            now_ms, _, what, grant, admitted = heapq.heappop(self._events)
            self._limiter.scripts.now_ms = now_ms
            if what == "ask":
                await self._ask(now_ms)
            elif what == "start":
                each_call(now_ms)
                self._at(now_ms + LATENCY_MS, "end", grant, self._server.admits(now_ms + LATENCY_MS / 2))
            elif grant is not None:
                await self._end(now_ms, grant, admitted)
        answered, refused = self._server.answered - before[0], self._server.refused - before[1]
        offered = (BEGIN_MS + seconds * 1000 - began_ms) / 60_000 * self._server.per_minute
        return Use(answered / offered, refused / max(answered + refused, 1))

    async def _ask(self, now_ms: float) -> None:
        reply = await self._limiter.reserve([self._candidate], 10)
        if isinstance(reply, Grant):
            self._at(now_ms + reply.wait_s * 1000, "start", reply)
        else:
            self._at(max(reply.until * 1000, now_ms) + LOOK_AGAIN_MS, "ask")

    async def _end(self, now_ms: float, grant: Grant, admitted: bool) -> None:
        await self._limiter.release(grant, 10, refused=not admitted)
        if admitted:
            await self._limiter.answered(grant)
        else:
            await self._limiter.refused(grant, Scope.MODEL, self._server.hint_s, "refused")
        self._at(now_ms, "ask")


async def main(url: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as connection:
        for per_minute in (6, 60, 600, 6_000):
            await connection.flushdb()
            limiter = Limiter(Leases(connection, "simulated"))
            simulation = Simulation(limiter, StrictServer(per_minute), slots=40)
            first = await simulation.run_until(120)
            later = await simulation.run_until(600)
            sys.stdout.write(
                f"{per_minute:>5}/min: first 2 minutes {first.used:.1%} used, {first.refused:.1%} refused;"
                f" the next 8 {later.used:.1%}, {later.refused:.1%}\n"
            )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
