"""How well limits are used when time is simulated: the limiter's real scripts in a real Redis, and a busy machine's
delays by chance. Beside `benchmarks/limits.py`, whose figures depend on how busy the machine really is.

    python benchmarks/limits_simulated.py --redis-url URL [--seconds 120] [--limits 60,600,6000]
        [--known configured,headers,neither] [--servers bucket,fixed,sliding] [--late-ms 3]

The named Redis database is FLUSHED. Printed for each: accepted / (burst + rate × time), and the share of all calls that
were answered 429. Answers take 0.3 s. A call starts late and arrives late, by `--late-ms` on average together; a job
that must ask again does so a few milliseconds late, or up to 0.25 s when it went back to the ledger.
"""

import argparse
import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count
from random import Random

import redis.asyncio
from strict_provider import KINDS, Meter

from models.failure import Scope
from worker import limits
from worker.failures import LimitSignals
from worker.limits import BULK, Candidate, Deployment, Grant, Limiter
from worker.limits_lua import KEPT
from worker.limits_scripts import STILL_HOLDS

BEGIN_MS = 1_800_000_000_000.0
LATENCY_MS = 300.0
TOKENS = 10
DEPLOYMENT = Deployment("strict", "m", "main", "strict:main")


@dataclass(frozen=True)
class Call:
    grant: Grant
    admitted: bool = False
    hint_s: float | None = None
    told: LimitSignals | None = None


@dataclass
class Simulation:
    """Jobs that always want more, one limiter, one strict provider."""

    limiter: Limiter
    meter: Meter
    candidate: Candidate
    headers: bool
    late_ms: float
    accepted: int = 0
    refused: int = 0
    first_ms: float = 0.0
    _rng: Random = field(default_factory=lambda: Random(1))
    _order: "count[int]" = field(default_factory=count)
    _events: list[tuple[float, int, str, Call | None]] = field(default_factory=list)

    def at(self, ms: float, what: str, call: Call | None = None) -> None:
        heapq.heappush(self._events, (ms, next(self._order), what, call))

    async def run(self, jobs: int, seconds: float) -> None:
        for job in range(jobs):
            self.at(BEGIN_MS + job * 0.1, "ask")
        while self._events[0][0] < BEGIN_MS + seconds * 1000:
            now, _, what, call = heapq.heappop(self._events)
            self.limiter.now_ms = now
            if call is None:
                await self._ask(now)
            elif what == "start":
                await self._start(now, call)
            elif what == "arrive":
                self._arrive(now, call)
            else:
                await self._end(now, call)

    def _late(self, share: float) -> float:
        return self._rng.expovariate(1 / (self.late_ms * share))

    async def _ask(self, now: float) -> None:
        reply = await self.limiter.reserve([self.candidate], TOKENS, BULK)
        if isinstance(reply, Grant):
            self.at(now + reply.wait_s * 1000 + (self._late(0.65) if reply.wait_s else 0.0), "start", Call(reply))
        else:
            in_slot = reply.until * 1000 - now <= 1000
            late = self._rng.uniform(2, 20) if in_slot else self._rng.uniform(50, 250)
            self.at(max(reply.until * 1000, now) + late, "ask")

    async def _start(self, now: float, call: Call) -> None:
        """What `Limiter.still_holds` does, without its sleep."""
        more_ms = 0
        if call.grant.wait_s:
            rate, _, *cooldowns = limits._keys(DEPLOYMENT)
            more_ms = int(await self.limiter._ask(STILL_HOLDS, [*cooldowns, rate], [call.grant.cost_ms]))
        if more_ms < 0:
            await self.limiter.cancel(call.grant)
            self.at(now + 1, "ask")
        elif more_ms:
            self.at(now + more_ms + self._late(0.65), "start", call)
        else:
            self.at(now + self._late(0.35), "arrive", call)

    def _arrive(self, now: float, call: Call) -> None:
        self.first_ms = self.first_ms or now
        second = now / 1000
        wait_s = self.meter.wait_s(1.0, second)
        admitted = wait_s <= 1e-6
        if admitted:
            self.meter.take(1.0, second)
            self.accepted += 1
        else:
            self.refused += 1
        left, reset_s = max(self.meter.room(second), 0.0), self.meter.reset_s(second)
        told = LimitSignals(self.meter.limit, left, reset_s) if self.headers else None
        hint_s = wait_s if self.headers and not admitted else None
        self.at(now + (LATENCY_MS if admitted else 10.0), "end", Call(call.grant, admitted, hint_s, told))

    async def _end(self, now: float, call: Call) -> None:
        if call.told is not None:
            await self.limiter.told(DEPLOYMENT, call.told)
        await self.limiter.release(call.grant, TOKENS, refused=not call.admitted)
        if call.admitted:
            await self.limiter.answered(call.grant)
        else:
            await self.limiter.cool(DEPLOYMENT, Scope.MODEL, call.hint_s, "refused", too_fast=True)
        self.at(now + self._rng.uniform(5, 40), "ask")


async def measure(
    connection: redis.asyncio.Redis, arguments: argparse.Namespace, kind: str, limit: int, how: str
) -> None:
    await connection.flushdb()
    candidate = Candidate(DEPLOYMENT, limit * KEPT if how == "configured" else None)
    simulation = Simulation(
        Limiter(connection, "w1"), KINDS[kind](float(limit)), candidate, how != "neither", arguments.late_ms
    )
    await simulation.run(min(60 if limit <= 600 else 300, 300), arguments.seconds)
    elapsed_s = arguments.seconds - (simulation.first_ms - BEGIN_MS) / 1000
    calls = simulation.accepted + simulation.refused
    used = simulation.accepted / (max(limit / 60, 1.0) + limit / 60 * elapsed_s)
    print(
        f"{kind:>8} {limit:>6,}/min, {how:<10}: {used:6.1%} used, {simulation.refused / max(calls, 1):5.1%} of"
        f" {calls:,} calls refused",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--limits", default="60,600,6000")
    parser.add_argument("--known", default="configured,headers,neither")
    parser.add_argument("--servers", default="bucket,fixed,sliding")
    parser.add_argument("--late-ms", type=float, default=3.0)
    arguments = parser.parse_args()
    async with redis.asyncio.Redis.from_url(arguments.redis_url) as connection:
        for kind in arguments.servers.split(","):
            for limit in arguments.limits.split(","):
                for how in arguments.known.split(","):
                    await measure(connection, arguments, kind, int(limit), how)


if __name__ == "__main__":
    asyncio.run(main())
