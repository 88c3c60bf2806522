"""Fleet-wide limits, held in Redis: requests, tokens, calls in flight, cooldowns, breakers.

Each query is one atomic script (`worker/limits/*.lua`) and returns a start time by Redis' own clock, so that the whole
fleet shares one. Limits of requests and tokens are virtual schedules (GCRA) with a burst of one second;
calls in flight are counted per worker (`worker.leases`). Calls and tokens of a UTC day are counted if a daily limit
exists. Cooldowns have three scopes: (account, model), account, and (provider, model), which is the breaker.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.exceptions import RedisError

from understudy.models.failure import Scope
from understudy.models.queue import keys
from understudy.worker.bounded_mapping import Latest
from understudy.worker.failures import LimitSignals
from understudy.worker.leases import Leases
from understudy.worker.limits.grants import (
    ANY_JOB,
    NO_LIMIT,
    Ahead,
    Candidate,
    Deployment,
    Grant,
    Hold,
    Outlook,
    Refusal,
)
from understudy.worker.planner.token_room import TokenRoom
from understudy.worker.redis_scripts import RedisUnavailable, Script

COOLDOWN_BOUNDS_S = (0.05, 86_400.0)
REPORT_EVERY_S = 0.25
"""How often a worker reports header limits of one account and model to Redis; a new limit is reported at once."""

BELIEVED_BOUNDS = (1.0, 1_000_000_000.0)
"""Limits in headers outside this range are ignored."""

ASKED_AGAIN_S = 2 * 86_400.0
"""Redis is asked again after this long at the latest. Daily limits never end later."""

LONGEST_RESET_S = 3_600.0
"""A reset further away is checked again after an hour."""


RESERVE = Script.load("worker/limits/reserve.lua")
STILL_HOLDS = Script.load("worker/limits/still_holds.lua")
RELEASE = Script.load("worker/limits/release.lua")
ADVERTISED = Script.load("worker/limits/advertised.lua")
OUTLOOK = Script.load("worker/limits/outlook.lua")
COOL = Script.load("worker/limits/cool.lua")
REFUSED = Script.load("worker/limits/refused.lua")
ANSWERED = Script.load("worker/limits/answered.lua")


CLOCKS_AGREE_S = 1.0
"""A smaller difference cannot be distinguished from the time it takes to compare clocks, and is harmless."""


class Limiter:
    """One worker's view of the fleet's limits. Concurrent queries share a round trip."""

    def __init__(self, leases: Leases) -> None:
        self.scripts = leases.scripts
        self._leases = leases
        self._clock: Callable[[], float] = time.time
        self._ahead_s = 0.0  # Redis' clock, by the clock it was compared with
        self._ending: Counter[str] = Counter()  # calls that are over, but still counted in Redis
        self._reported: Latest[tuple[str, str], tuple[float, tuple[float | None, float | None]]] = Latest()

    async def reserve(self, candidates: Sequence[Candidate], tokens: int, ahead: Ahead = ANY_JOB) -> Grant | Refusal:
        """Reserve a call of about `tokens` tokens on the candidate that can start first; ties go to the earlier one.

        Refused if our own pacing prevents a start within `ahead`, and while it is cooled. Raises RedisUnavailable.
        """
        leases, booking = self._leases, (round(ahead.longest_s * 1000), ahead.calls, round(ahead.slow_s * 1000))
        args = [leases.worker_id, *booking, leases.lease_ms, tokens, *_numbers(candidates)]
        async with leases.changing(each.deployment.flight_key for each in candidates):
            reply = await self.scripts.run(RESERVE, _keys(candidates), args)
        if reply[0] >= 0:
            index, wait_ms, streak, start_ms, cost_ms, number = reply
            wait_s = float(wait_ms) / 1000
            return Grant(candidates[index], wait_s, tokens, streak, float(start_ms), float(cost_ms), number)
        _, until_ms, held_by, index, since_ms, is_paced = reply
        hold, deployment = Hold(held_by.decode()), candidates[index].deployment
        cooled = hold in (Hold.COOLDOWN, Hold.BREAKER)
        since = self._at(since_ms) if cooled or is_paced else None
        return Refusal(self._at(until_ms), hold, deployment, since)

    async def still_holds(self, grant: Grant) -> bool:
        """False if the scope was cooled while the caller waited for the start: cancel it and ask again.

        Waits a little longer if the call before it began late and the limit has no burst.
        """
        rate, _, *cooldowns, _ = grant.candidate.deployment.redis_keys
        while (more_ms := int(await self.scripts.run(STILL_HOLDS, [*cooldowns, rate], [grant.cost_ms]))) > 0:
            await asyncio.sleep(more_ms / 1000)
        return more_ms == 0

    async def release(self, grant: Grant, tokens_used: int | None, *, refused: bool = False) -> None:
        """The call has ended. `tokens_used` corrects the reservation (None keeps it, unless a rate limit `refused`)."""
        tokens_used = 0 if refused and tokens_used is None else tokens_used
        more_tokens = tokens_used - grant.tokens if tokens_used is not None else 0
        await self._end(grant, "refused" if refused else "answered", more_tokens)

    async def cancel(self, grant: Grant) -> None:
        """The call was never made: refund everything."""
        await self._end(grant, "unmade", -grant.tokens)

    async def cool(
        self,
        deployment: Deployment,
        scope: Scope,
        for_s: float | None,
        reason: str,
        *,
        began_ms: float | None = None,
        probed: bool = False,
    ) -> float:
        """Cool the scope for `for_s` seconds; None: twice as long as last time (2 s to 60 s).

        A longer cooldown is never shortened by a later, shorter one. Returns its end in unix seconds. Scope.PROVIDER is
        the breaker, which rests for a third of the time it has been open instead of doubling. A call that began
        (`began_ms`: its grant's start) before the breaker was closed no longer counts. `probed`: afterwards only probes
        start until one is answered.
        """
        args = _rest_args(scope, for_s, reason, began_ms, probed=probed)
        return self._at(await self.scripts.run(COOL, [deployment.cooldown_key(scope)], args))

    async def refused(self, grant: Grant, scope: Scope, hint_s: float | None, reason: str) -> float | None:
        """A call was rejected unprocessed, by a rate limit or an overload. Applies what this proves.

        Returns the end of the scope's rest in unix seconds, or None if it proves no need to rest.
        """
        deployment = grant.candidate.deployment
        names = [deployment.cooldown_key(scope), *deployment.redis_keys[:2]]
        args = _rest_args(scope, hint_s, reason, grant.start_ms, probed=False)
        end = await self.scripts.run(REFUSED, names, [*args, *grant.candidate.numbers[:2], grant.number])
        return self._at(end) if end else None

    async def advertised(self, deployment: Deployment, signals: LimitSignals) -> None:
        """Apply the limits advertised in a response's headers: the fleet adheres to them, and brakes when others use
        them up.

        Calls Redis at most every REPORT_EVERY_S for each account and model, and at once for a new limit.
        """
        name, now = (deployment.account, deployment.model), time.monotonic()
        limits = (signals.requests_limit, signals.tokens_limit)
        last = self._reported.get(name)
        if last is not None and last[1] == limits and now - last[0] < REPORT_EVERY_S:
            return
        self._reported[name] = (now, limits)
        await self.scripts.run(ADVERTISED, deployment.redis_keys[:1], _advertised_numbers(signals))

    async def answered(self, grant: Grant) -> None:
        """The deployment works: drop its expired cooldowns. Calls Redis only if there are any."""
        if grant.streak:
            await self.scripts.run(ANSWERED, grant.candidate.deployment.redis_keys[2:5], [])

    async def outlook(self, candidates: Sequence[Candidate], horizon_s: float, tokens: int = 0) -> list[Outlook]:
        """How many calls of `tokens` tokens each candidate could start within the horizon."""
        reply = await self.scripts.run(
            OUTLOOK,
            _keys(candidates),
            [round(horizon_s * 1000), tokens, *_numbers(candidates)],
        )
        return [
            Outlook(
                NO_LIMIT if starts < 0 else starts,
                cooled_ms / 1000 if cooled_ms > 0 else None,
                Hold(hold.decode()) if hold else None,
                self._at(first_ms),
                refusing_ms / 1000 if refusing_ms > 0 else None,
                paced_ms / 1000 if paced_ms > 0 else None,
                TokenRoom(left, burst, NO_LIMIT if others < 0 else others) if burst else None,
            )
            for starts, cooled_ms, hold, first_ms, refusing_ms, left, burst, others, paced_ms in zip(
                *(reply[i::9] for i in range(9)), strict=True
            )
        ]

    def count(self, in_flight: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """From now on `Leases.beat` renews the calls in flight that this returns, as (account, model) of each."""

        def amounts() -> Counter[str]:
            self._ending = +self._ending  # without zeros
            return Counter(keys.flight(*call) for call in in_flight()) + self._ending

        self._leases.count(amounts)

    async def compare_clocks(self, clock: Callable[[], float]) -> None:
        """From now on times are given by `clock`, however far Redis' own differs from it."""
        self._clock = clock
        began = clock()
        try:
            seconds, microseconds = await self.scripts.redis.time()
        except RedisError as error:
            raise RedisUnavailable(f"Redis is unavailable: {type(error).__name__}") from error
        ended = clock()
        ahead_s = seconds + microseconds / 1e6 - (began + ended) / 2
        self._ahead_s = ahead_s if abs(ahead_s) > CLOCKS_AGREE_S + (ended - began) / 2 else 0.0

    def _at(self, redis_ms: Any) -> float:
        """Unix seconds, from Redis' milliseconds."""
        now = self._clock() if self.scripts.now_ms is None else self.scripts.now_ms / 1000
        return min(float(redis_ms) / 1000 - self._ahead_s, now + ASKED_AGAIN_S)

    async def _end(self, grant: Grant, how: str, more_tokens: int) -> None:
        candidate, leases = grant.candidate, self._leases
        flight, (*names, day) = candidate.deployment.flight_key, candidate.deployment.redis_keys
        has_day = candidate.requests_per_day or candidate.tokens_per_day
        call = grant.start_ms, grant.cost_ms, how, more_tokens, candidate.tokens_per_minute or 0
        args = [leases.worker_id, leases.lease_ms, *call, grant.tokens, grant.number]
        self._ending[flight] += 1
        async with leases.changing([flight], released=lambda: self._ending.subtract([flight])):
            await self.scripts.run(RELEASE, [*names, day] if has_day else names, args)


def _keys(candidates: Sequence[Candidate]) -> list[str]:
    return [key for candidate in candidates for key in candidate.deployment.redis_keys]


def _numbers(candidates: Sequence[Candidate]) -> list[float]:
    return [number for candidate in candidates for number in candidate.numbers]


def _rest_args(scope: Scope, for_s: float | None, reason: str, began_ms: float | None, *, probed: bool) -> list[Any]:
    low, high = COOLDOWN_BOUNDS_S
    length = "" if for_s is None else round(min(max(for_s, low), high) * 1000)
    return [length, reason, "" if began_ms is None else began_ms, int(scope is Scope.PROVIDER), int(probed)]


def _advertised_numbers(signals: LimitSignals) -> list[float]:
    """Limit (0: not advertised), remaining (-1: not advertised), ms to the reset, ms of the period: of requests,
    then of tokens."""
    low, high = BELIEVED_BOUNDS
    requests = (signals.requests_limit, signals.requests_remaining, signals.requests_reset_s, signals.requests_period_s)
    tokens = (signals.tokens_limit, signals.tokens_remaining, signals.tokens_reset_s, signals.tokens_period_s)
    numbers: list[float] = []
    for limit, remaining, reset_s, period_s in (requests, tokens):
        believed = limit if limit is not None and low <= limit <= high else 0
        reset_ms = min(reset_s or 0.0, LONGEST_RESET_S) * 1000
        numbers += [believed, -1 if remaining is None else remaining, reset_ms, period_s * 1000]
    return numbers
