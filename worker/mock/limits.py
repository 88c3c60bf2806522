"""Enforced limits of requests and tokens per minute. Pure: the time is an argument.

Three kinds of window, because providers differ: a bucket that refills steadily and holds `burst_s` seconds' worth, a
fixed minute that restarts, and a sliding minute that looks back. A request above a bucket's size passes when the bucket
is full and leaves it in debt, as the real ones do; one above a minute's worth never passes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from understudy.worker.mock.calls import ReceivedCall
from understudy.worker.mock.config import Limit
from understudy.worker.mock.rules import named

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """The content of rate-limit headers: limit per minute, remaining amount, seconds until full."""

    limit: float
    remaining: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wait_s` 0: admitted; above 0: rejected, retry after this time; None: rejected, larger than the limit."""

    wait_s: float | None
    requests: Standing | None = None
    tokens: Standing | None = None

    @property
    def admitted(self) -> bool:
        return self.wait_s == 0.0


class Bucket:
    def __init__(self, per_minute: float, burst_s: float) -> None:
        self._limit = per_minute
        self._rate = per_minute / MINUTE_S
        self._size = max(self._rate * burst_s, 1.0)
        self._level = self._size
        self._at = 0.0

    def _refill(self, now: float) -> None:
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now

    def wait_s(self, cost: float, now: float) -> float:
        self._refill(now)
        missing = min(cost, self._size) - self._level
        # A millionth of a unit is rounding, not a debt: otherwise a client that waits exactly as long as requested is
        # rejected.
        return missing / self._rate if missing > 1e-6 else 0.0

    def charge(self, cost: float, now: float) -> None:
        self._refill(now)
        self._level -= cost

    def standing(self, now: float) -> Standing:
        self._refill(now)
        return Standing(self._limit, max(self._level, 0.0), (self._size - self._level) / self._rate)


class Fixed:
    """Minutes are counted from the start of the server."""

    def __init__(self, per_minute: float) -> None:
        self._limit = per_minute
        self._minute = -1
        self._used = 0.0

    def _turn(self, now: float) -> None:
        if int(now // MINUTE_S) != self._minute:
            self._minute, self._used = int(now // MINUTE_S), 0.0

    def wait_s(self, cost: float, now: float) -> float:
        self._turn(now)
        return 0.0 if self._used + cost <= self._limit else MINUTE_S - now % MINUTE_S

    def charge(self, cost: float, now: float) -> None:
        self._turn(now)
        self._used += cost

    def standing(self, now: float) -> Standing:
        self._turn(now)
        return Standing(self._limit, max(self._limit - self._used, 0.0), MINUTE_S - now % MINUTE_S)


class Sliding:
    def __init__(self, per_minute: float) -> None:
        self._limit = per_minute
        self._charges: deque[tuple[float, float]] = deque()
        self._used = 0.0

    def _forget(self, now: float) -> None:
        while self._charges and self._charges[0][0] <= now - MINUTE_S:
            self._used -= self._charges.popleft()[1]

    def wait_s(self, cost: float, now: float) -> float:
        self._forget(now)
        excess = self._used + cost - self._limit
        for at, charged in self._charges:
            if excess <= 0:
                break
            excess -= charged
            if excess <= 0:
                return at + MINUTE_S - now
        return 0.0

    def charge(self, cost: float, now: float) -> None:
        self._charges.append((now, cost))
        self._used += cost

    def standing(self, now: float) -> Standing:
        self._forget(now)
        reset_s = self._charges[-1][0] + MINUTE_S - now if self._charges else 0.0
        return Standing(self._limit, max(self._limit - self._used, 0.0), reset_s)


Window = Bucket | Fixed | Sliding
"""One budget of one kind of unit. `wait_s` queries it without charging anything."""


class _Budget:
    """The windows of one limit, by unit."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        amounts = {"requests": limit.requests_per_minute, "tokens": limit.tokens_per_minute}
        self.windows = {unit: _window(limit, amount) for unit, amount in amounts.items() if amount is not None}

    def costs(self, call: ReceivedCall, output_tokens: int) -> dict[str, int]:
        reserved = call.max_tokens if self._limit.count_max_tokens and call.max_tokens else output_tokens
        return {"requests": 1, "tokens": call.input_tokens + reserved}

    def wait_s(self, costs: dict[str, int], now: float) -> float | None:
        if self._limit.tokens_per_minute is not None and costs["tokens"] > self._limit.tokens_per_minute:
            return None
        return max(window.wait_s(costs[unit], now) for unit, window in self.windows.items())

    def charge(self, costs: dict[str, int], now: float) -> None:
        for unit, window in self.windows.items():
            window.charge(costs[unit], now)


def _window(limit: Limit, per_minute: float) -> Window:
    if limit.window == "bucket":
        return Bucket(per_minute, limit.burst_s)
    return Fixed(per_minute) if limit.window == "fixed" else Sliding(per_minute)


class Limiter:
    """All limits of all providers. A request must pass every limit that covers it; a rejected one is charged to
    none."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = [(limit, named(limit.provider), named(limit.model)) for limit in limits]
        self._budgets: dict[tuple[int, str, str, str], _Budget] = {}
        self._covering_of: dict[tuple[str, str, str], list[_Budget]] = {}

    def admit(self, call: ReceivedCall, output_tokens: int, now: float) -> Verdict:
        """`now` in seconds of any clock that begins near 0; `output_tokens` is the size of the answer."""
        budgets = self._covering(call)
        costs = [budget.costs(call, output_tokens) for budget in budgets]
        waits = [budget.wait_s(cost, now) for budget, cost in zip(budgets, costs, strict=True)]
        wait_s = None if None in waits else max((wait for wait in waits if wait is not None), default=0.0)
        if wait_s == 0.0:
            for budget, cost in zip(budgets, costs, strict=True):
                budget.charge(cost, now)
        return Verdict(wait_s, *(_tightest(budgets, unit, now) for unit in ("requests", "tokens")))

    def _covering(self, call: ReceivedCall) -> list[_Budget]:
        who = (call.provider, call.model, call.key)
        if who not in self._covering_of:
            self._covering_of[who] = [
                self._budget(number, call)
                for number, (_, provider, model) in enumerate(self._limits)
                if provider(call.provider) and model(call.model)
            ]
        return self._covering_of[who]

    def _budget(self, number: int, call: ReceivedCall) -> _Budget:
        limit = self._limits[number][0]
        owner = (number, call.provider, call.model, call.key if limit.per == "key" else "")
        if owner not in self._budgets:
            self._budgets[owner] = _Budget(limit)
        return self._budgets[owner]


def _tightest(budgets: Sequence[_Budget], unit: str, now: float) -> Standing | None:
    standings = [budget.windows[unit].standing(now) for budget in budgets if unit in budget.windows]
    return min(standings, key=lambda standing: standing.remaining / standing.limit, default=None)
