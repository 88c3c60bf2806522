"""Workers of one fleet over a fake Redis, with the limiter's real scripts and simulated time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from fakeredis import FakeAsyncRedis, FakeServer

from examples import examples
from understudy.models.failure import Scope
from understudy.models.queue import keys
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import Candidate, Deployment, Grant, Hold, Refusal
from understudy.worker.limits.limiter import Limiter

BEGIN_MS = 1_800_000_000_000.0
EXAMPLES = examples(30)
T = TypeVar("T")


def moment(after_s: float) -> Any:
    """This long after the beginning, within two milliseconds: without its own bound `approx` allows half an hour."""
    return pytest.approx(BEGIN_MS / 1000 + after_s, abs=0.002)


def candidate(
    key: str = "main", model: str = "large", *, rpm: int | None = None, tpm: int | None = None, most: int | None = None
) -> Candidate:
    return Candidate(Deployment("alpha", model, key, f"alpha:{key}"), rpm, tpm, most)


class Fleet:
    """Workers that share a Redis and a clock."""

    def __init__(self, workers: int = 1, lease_s: float = 15.0) -> None:
        self.redis = FakeAsyncRedis(server=FakeServer())
        self.leases = [Leases(self.redis, f"w{number}", lease_s) for number in range(workers)]
        self.workers = [Limiter(leases) for leases in self.leases]
        self.at_ms(0.0)

    def at_ms(self, ms: float) -> None:
        self.ms = ms
        for worker in self.workers:
            worker.scripts.now_ms = BEGIN_MS + ms

    def after_s(self, seconds: float) -> None:
        self.at_ms(self.ms + seconds * 1000)

    async def has_proven_itself(self) -> None:
        """End slow start at the deployment that tests use unless they say otherwise."""
        await self.redis.hset(keys.rate("alpha:main", "large"), "window", 1000)

    @property
    def one(self) -> Limiter:
        return self.workers[0]

    async def grant(self, *candidates: Candidate, tokens: int = 10) -> Grant:
        reply = await self.one.reserve(candidates, tokens)
        assert isinstance(reply, Grant), reply
        return reply

    async def refusal(self, *candidates: Candidate, tokens: int = 10) -> Refusal:
        reply = await self.one.reserve(candidates, tokens)
        assert isinstance(reply, Refusal), reply
        return reply

    async def next_call(self, *candidates: Candidate, tokens: int = 10) -> Grant:
        """The next call that may start; time advances until it does."""
        while isinstance(reply := await self.one.reserve(candidates, tokens), Refusal):
            self.at_ms(max(reply.until * 1000 - BEGIN_MS, self.ms + 1))
        self.after_s(reply.wait_s)
        return reply

    async def refuse(self, grant: Grant, hint_s: float | None = None) -> float | None:
        """The provider refuses the call. Returns the end of the following rest, or None if there is none."""
        await self.one.release(grant, None, refused=True)
        return await self.one.refused(grant, Scope.MODEL, hint_s, "429")

    async def refuse_together(self, grants: Sequence[Grant]) -> float | None:
        """They come back at the same moment: all are released before the first is judged. Returns the rest's end."""
        for grant in grants:
            await self.one.release(grant, None, refused=True)
        ends = [await self.one.refused(grant, Scope.MODEL, None, "429") for grant in grants]
        return ends[-1]

    async def refuse_until_it_rests(self, candidate: Candidate, hint_s: float | None = None) -> float:
        """Every call from now on is refused before the next one starts, until all must rest. Returns the rest's end."""
        for _ in range(100):
            if (end := await self.refuse(await self.next_call(candidate), hint_s)) is not None:
                return end
        raise AssertionError("nothing makes it rest")

    async def refuse_until_hints_are_doubted(self, candidate: Candidate, hint_s: float) -> float:
        """Like the call before it, each call after the end of a hint is refused, too. Returns the end of the third
        rest.

        Three in a row are more than chance explains, so this rest has a learned rate.
        """
        for _ in range(2):
            await self.refuse_until_it_rests(candidate, hint_s)
        return await self.refuse_until_it_rests(candidate, hint_s)

    async def grants_now(self, *candidates: Candidate, tokens: int = 10, most: int | None = None) -> int:
        """How many calls can start at this moment, without a wait; at most `most` are tried if no limit may apply."""
        for number in range(most or 1000):
            reply = await self.one.reserve(candidates, tokens)
            if isinstance(reply, Refusal):
                return number
            if reply.wait_s:
                await self.one.cancel(reply)
                return number
        if most is not None:
            return most
        raise AssertionError("no limit holds")

    async def cools_for_s(self, *candidates: Candidate) -> float:
        refused = await self.refusal(*candidates)
        assert refused.hold in (Hold.COOLDOWN, Hold.BREAKER)
        return round(refused.until - (BEGIN_MS + self.ms) / 1000, 3)


def simulated(story: Callable[[Fleet], Awaitable[T]], workers: int = 1) -> T:
    """Run one example of a property on a fleet of its own."""

    async def tell() -> T:
        fleet = Fleet(workers)
        try:
            return await story(fleet)
        finally:
            await fleet.redis.aclose()

    return asyncio.run(tell())


def worst_excess(starts: Sequence[tuple[float, float]], per_ms: float) -> float:
    """By how much the costs that start within any window exceed what the rate allows for its length."""
    starts, worst = sorted(starts), 0.0
    for first in range(len(starts)):
        spent = 0.0
        for at, cost in starts[first:]:
            spent += cost
            worst = max(worst, spent - per_ms * (at - starts[first][0]))
    return worst
