"""How much of a UTC day's limits is used, as people read it from what the limiter counts in Redis."""

from dataclasses import dataclass

from understudy.models.config.settings import Limits

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class DayUse:
    """Calls and tokens of one day; calls under way count with what they are expected to use."""

    requests: int = 0
    tokens: int = 0

    def next_start(self, limits: Limits, now: float) -> float:
        """When a call may start at the earliest, as far as the day that it is now is concerned."""
        uses = ((self.requests, limits.requests_per_day), (self.tokens, limits.tokens_per_day))
        return end_of_day(now) if any(limit is not None and used >= limit for used, limit in uses) else now


def end_of_day(now: float) -> float:
    """The next midnight UTC, in unix seconds."""
    return (now // DAY_S + 1) * DAY_S
