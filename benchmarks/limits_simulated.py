"""How well limits are used in simulated time: the limiter's real scripts in a real Redis, with random delays of a busy
machine. Complements `benchmarks/limits.py`, whose results depend on how busy the machine really is.

    python benchmarks/limits_simulated.py --redis-url URL [--seconds 120] [--limits 60,600,6000]
        [--known configured,headers,hints,neither] [--servers bucket,fixed,sliding] [--late-ms 3] [--tokens]
    python benchmarks/limits_simulated.py --redis-url URL --servers random [--seconds 120] [--rate 6000]
        [--shares 0.01,0.03,0.1,0.2,0.4,0.6] [--hints 0,2] [--seed 1]

With --each-second it prints the accepted and refused calls of each second.

The given Redis database is FLUSHED. Printed for each: accepted / (burst + rate × time), and the share of all calls
answered with 429. Answers take 0.3 s. Calls start and arrive late, by `--late-ms` on average in total; a job that must
retry does so a few milliseconds late, or up to 0.25 s late if it went back to the ledger. With --tokens the limit
counts tokens (the limit × 1,000), with prompts of 25 to 4,000 tokens, answers of 40 and max_tokens 2,000; three workers
independently learn the length of answers; the printed use then refers to tokens. `hints`: only refusals tell how long
to wait. `random` refuses a share of the calls whatever the rate, with or without (0) a hint; printed is the number of
accepted calls, relative to what the same slots would achieve if every refused call were repeated at once.
"""

import argparse
import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count, pairwise
from random import Random

import redis.asyncio
from fleet_run import MOST_TOKENS, PROMPTS, TOKENS_A_CALL, cases, command_line
from random_refusals import (
    LATENCY_S,
    REFUSED_AFTER_S,
    WINDOW_S,
    Case,
    allowed,
    random_cases,
    report,
    slots,
    with_options,
)
from strict_provider import KINDS, Meter

from understudy.models.failure import Scope
from understudy.models.limits.constants import USED_SHARE
from understudy.models.request.tokens import Usage
from understudy.worker.failures import LimitSignals
from understudy.worker.leases import Leases
from understudy.worker.limits import limiter as limits
from understudy.worker.limits.estimates import Estimates
from understudy.worker.limits.grants import BULK, Candidate, Deployment, Grant
from understudy.worker.limits.limiter import Limiter

BEGIN_MS = 1_800_000_000_000.0
LATENCY_MS = LATENCY_S * 1000
REFUSED_AFTER_MS = REFUSED_AFTER_S * 1000
PAUSE_MS = (5, 40)
"""The time between the end of a call and the next one in its slot."""

ANSWER = 40
MODEL = ("strict", "m")
DEPLOYMENT = Deployment("strict", "m", "main", "strict:main")


@dataclass(frozen=True)
class Job:
    """The tokens of its prompt, and the answer length learned by its worker."""

    prompt: int
    estimates: Estimates


@dataclass(frozen=True)
class Call:
    job: Job
    grant: Grant
    admitted: bool = False
    hint_s: float | None = None
    told: LimitSignals | None = None


@dataclass
class Simulation:
    """An endless supply of jobs, one limiter, one strict provider."""

    limiter: Limiter
    meter: Meter
    candidate: Candidate
    headers: bool
    late_ms: float
    tokens: bool
    accepted: int = 0
    used: int = 0
    refused: int = 0
    first_ms: float = 0.0
    share: float | None = None
    hints_only: bool = False
    hint_s: float | None = None
    _chance: Random = field(default_factory=lambda: Random(2))
    _rng: Random = field(default_factory=lambda: Random(1))
    _order: "count[int]" = field(default_factory=count)
    _events: list[tuple[float, int, str, Job | Call]] = field(default_factory=list)
    _workers: list[Estimates] = field(default_factory=lambda: [Estimates() for _ in range(3)])

    def at(self, ms: float, what: str, of: Job | Call) -> None:
        heapq.heappush(self._events, (ms, next(self._order), what, of))

    def _job(self) -> Job:
        return Job(self._rng.choice(PROMPTS), self._rng.choice(self._workers))

    async def run(self, jobs: int, seconds: float) -> None:
        for job in range(jobs):
            self.at(BEGIN_MS + job * 0.1, "ask", self._job())
        while self._events[0][0] < BEGIN_MS + seconds * 1000:
            now, _, what, of = heapq.heappop(self._events)
            self.limiter.scripts.now_ms = now
            if isinstance(of, Job):
                await self._ask(now, of)
            elif what == "start":
                await self._start(now, of)
            elif what == "arrive":
                self._arrive(now, of)
            else:
                await self._end(now, of)

    def _late(self, share: float) -> float:
        return self._rng.expovariate(1 / (self.late_ms * share))

    async def _ask(self, now: float, job: Job) -> None:
        tokens = job.estimates.tokens_to_reserve(MODEL, "strict", "batch", job.prompt, MOST_TOKENS)
        reply = await self.limiter.reserve([self.candidate], tokens, BULK)
        if isinstance(reply, Grant):
            late = self._late(0.65) if reply.wait_s else 0.0
            self.at(now + reply.wait_s * 1000 + late, "start", Call(job, reply))
        else:
            in_slot = reply.until * 1000 - now <= 1000
            late = self._rng.uniform(2, 20) if in_slot else self._rng.uniform(50, 250)
            self.at(max(reply.until * 1000, now) + late, "ask", job)

    async def _start(self, now: float, call: Call) -> None:
        """Like `Limiter.still_holds`, without its sleep."""
        more_ms = 0
        if call.grant.wait_s:
            rate, _, *cooldowns, _ = DEPLOYMENT.redis_keys
            more_ms = int(await self.limiter.scripts.run(limits.STILL_HOLDS, [*cooldowns, rate], [call.grant.cost_ms]))
        if more_ms < 0:
            await self.limiter.cancel(call.grant)
            self.at(now + 1, "ask", call.job)
        elif more_ms:
            self.at(now + more_ms + self._late(0.65), "start", call)
        else:
            self.at(now + self._late(0.35), "arrive", call)

    def _arrive(self, now: float, call: Call) -> None:
        self.first_ms = self.first_ms or now
        second = now / 1000
        if self.share is not None:
            admitted = self._chance.random() >= self.share
            self.accepted += admitted
            self.refused += not admitted
            for_s = None if admitted else self.hint_s
            self.at(
                now + (LATENCY_MS if admitted else REFUSED_AFTER_MS), "end", Call(call.job, call.grant, admitted, for_s)
            )
            return
        cost = call.job.prompt + ANSWER if self.tokens else 1
        wait_s = self.meter.wait_s(cost, second)
        admitted = wait_s <= 1e-6
        if admitted:
            self.meter.take(cost, second)
            self.accepted += 1
            self.used += cost
        else:
            self.refused += 1
        left, reset_s = max(self.meter.room(second), 0.0), self.meter.reset_s(second)
        told = self._told(left, reset_s) if self.headers and not self.hints_only else None
        hint_s = wait_s if self.headers and not admitted else None
        self.at(
            now + (LATENCY_MS if admitted else REFUSED_AFTER_MS),
            "end",
            Call(call.job, call.grant, admitted, hint_s, told),
        )

    def _told(self, left: float, reset_s: float) -> LimitSignals:
        if self.tokens:
            return LimitSignals(tokens_limit=self.meter.limit, tokens_remaining=left, tokens_reset_s=reset_s)
        return LimitSignals(self.meter.limit, left, reset_s)

    async def _end(self, now: float, call: Call) -> None:
        if call.told is not None:
            await self.limiter.advertised(DEPLOYMENT, call.told)
        prompt = call.job.prompt
        used = prompt + ANSWER if call.admitted else None
        await self.limiter.release(call.grant, used, refused=not call.admitted)
        if call.admitted:
            call.job.estimates.learn(MODEL, "batch", prompt, Usage(input_tokens=prompt, output_tokens=ANSWER))
            await self.limiter.answered(call.grant)
        else:
            await self.limiter.refused(call.grant, Scope.MODEL, call.hint_s, "refused")
        self.at(now + self._rng.uniform(*PAUSE_MS), "ask", self._job() if call.admitted else call.job)


async def each_second(simulation: Simulation, in_slots: int, seconds: float) -> None:
    """Print the results of each second."""
    for second in range(1, int(seconds) + 1):
        accepted, refused = simulation.accepted, simulation.refused
        await simulation.run(in_slots if second == 1 else 0, second)
        print(f"{second:>4}: {simulation.accepted - accepted} accepted, {simulation.refused - refused} refused")


async def measure(
    connection: redis.asyncio.Redis, arguments: argparse.Namespace, kind: str, limit: int, how: str
) -> None:
    await connection.flushdb()
    tokens, allowed = arguments.tokens, limit * TOKENS_A_CALL if arguments.tokens else limit
    configured = allowed * USED_SHARE if how == "configured" else None
    candidate = Candidate(DEPLOYMENT, None, configured) if tokens else Candidate(DEPLOYMENT, configured)
    meter, headers = KINDS[kind](float(allowed)), how != "neither"
    simulation = Simulation(Limiter(Leases(connection, "w1")), meter, candidate, headers, arguments.late_ms, tokens)
    simulation.hints_only = how == "hints"
    simulation._rng = Random(arguments.seed)
    in_slots = 60 if limit <= 600 else 300
    if arguments.each_second:
        await each_second(simulation, in_slots, arguments.seconds)
    await simulation.run(0 if arguments.each_second else in_slots, arguments.seconds)
    elapsed_s = arguments.seconds - (simulation.first_ms - BEGIN_MS) / 1000
    calls = simulation.accepted + simulation.refused
    used = simulation.used / (max(allowed / 60, 1.0) + allowed / 60 * elapsed_s)
    print(
        f"{kind:>8} {allowed:>9,}/min, {how:<10}: {used:6.1%} used, {simulation.refused / max(calls, 1):5.1%} of"
        f" {calls:,} calls refused",
        flush=True,
    )


async def measure_random(connection: redis.asyncio.Redis, arguments: argparse.Namespace, case: Case) -> None:
    """The number of slots that would make `--rate` calls per minute without refusals."""
    await connection.flushdb()
    simulation = Simulation(
        Limiter(Leases(connection, "w1")), KINDS["bucket"](1.0), Candidate(DEPLOYMENT), False, arguments.late_ms, False
    )
    simulation.share, simulation.hint_s, simulation._chance = case.share, case.hint_s, Random(arguments.seed + 1)
    in_slots, marks = slots(arguments.rate), [0]
    if arguments.each_second:
        await each_second(simulation, in_slots, arguments.seconds)
        return
    for seconds in range(WINDOW_S, int(arguments.seconds) + 1, WINDOW_S):
        await simulation.run(in_slots if seconds == WINDOW_S else 0, seconds)
        marks.append(simulation.accepted)
    possible = allowed(in_slots, sum(PAUSE_MS) / 2 / 1000, case.share)
    calls = simulation.refused + simulation.accepted
    print(report(case, [b - a for a, b in pairwise(marks)], calls, possible), flush=True)


async def main() -> None:
    parser = with_options(command_line(__doc__, servers="bucket,fixed,sliding"))
    parser.add_argument("--late-ms", type=float, default=3.0)
    parser.add_argument("--each-second", action="store_true")
    arguments = parser.parse_args()
    if arguments.servers == "random":
        async with redis.asyncio.Redis.from_url(arguments.redis_url) as connection:
            for case in random_cases(arguments):
                await measure_random(connection, arguments, case)
        return
    async with redis.asyncio.Redis.from_url(arguments.redis_url) as connection:
        for kind, limit, how in cases(arguments):
            await measure(connection, arguments, kind, limit, how)


if __name__ == "__main__":
    asyncio.run(main())
