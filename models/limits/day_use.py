"""Usage of a UTC day's limits, from the limiter's counters in Redis."""

from dataclasses import dataclass

from understudy.models.config.provider_settings import Limits

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class DayUse:
    """Calls and tokens of one day; calls in flight count with their expected usage."""

    requests: int = 0
    tokens: int = 0

    def next_start(self, limits: Limits, now: float) -> float:
        """The earliest start of a call, as far as the current day's limits are concerned."""
        uses = ((self.requests, limits.requests_per_day), (self.tokens, limits.tokens_per_day))
        return end_of_day(now) if any(limit is not None and used >= limit for used, limit in uses) else now


def end_of_day(now: float) -> float:
    """The next midnight UTC, in unix seconds."""
    return (now // DAY_S + 1) * DAY_S
