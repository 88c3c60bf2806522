"""Distinguishes per-second limits in headers without a stated period from per-minute ones.

One response proves nothing: a minute's window ends within a second, too, and for an empty bucket both look the same.
Over some seconds a steady refill shows it: the used share of the limit is the time to its reset. Judged by this worker
alone; what another worker has not found out yet counts as per minute, which is too slow and never too fast.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from understudy.worker.bounded_mapping import Latest
from understudy.worker.failures import LimitSignals
from understudy.worker.failures.advertised_limits import CLOSE, MINUTE_S
from understudy.worker.limits.grants import Deployment

SECOND_S = 1.0
CLEAR_S = 0.8
"""A reset further away might as well be that of a one-second bucket in a per-minute limit."""

PROVED_BY = 3
PROVED_AFTER_S = 2.0
"""By then the last second of a minute is over."""


@dataclass(slots=True)
class _Row:
    """Consecutive responses with per-second numbers. `since`: monotonic seconds."""

    since: float
    count: int = 0
    proved: bool = False


class AdvertisedPeriods:
    """Remembers only candidates for per-second limits."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._rows: Latest[tuple[str, str, str], _Row] = Latest()

    def named(self, deployment: Deployment, told: LimitSignals) -> LimitSignals:
        """The limits advertised in a response of this deployment, with the periods proved by its numbers and earlier
        ones."""
        requests = told.requests_limit, told.requests_remaining, told.requests_reset_s, told.requests_period_s
        tokens = told.tokens_limit, told.tokens_remaining, told.tokens_reset_s, told.tokens_period_s
        of = deployment.account, deployment.model
        return replace(
            told,
            requests_period_s=self._period_s((*of, "requests"), *requests),
            tokens_period_s=self._period_s((*of, "tokens"), *tokens),
        )

    def _period_s(
        self,
        name: tuple[str, str, str],
        limit: float | None,
        remaining: float | None,
        reset_s: float | None,
        period_s: float,
    ) -> float:
        if period_s != MINUTE_S or limit is None or remaining is None or reset_s is None:
            return period_s
        seems = _seems_a_seconds(limit, remaining, reset_s)
        if seems is False:
            self._rows.pop(name, None)
        elif seems:
            row = self._rows.setdefault(name, _Row(self._monotonic()))
            row.count += 1
            row.proved = row.proved or (row.count >= PROVED_BY and self._monotonic() - row.since >= PROVED_AFTER_S)
        found = self._rows.get(name)
        return SECOND_S if found is not None and found.proved else period_s


def _seems_a_seconds(limit: float, remaining: float, reset_s: float) -> bool | None:
    """None: the numbers are inconclusive; whole seconds are rounded."""
    if reset_s > SECOND_S * (1 + CLOSE):
        return False
    if not 0 < reset_s <= CLEAR_S or remaining >= limit:
        return None
    return abs(limit * reset_s / (limit - remaining) / SECOND_S - 1) <= CLOSE
