"""Limits of a second that headers tell without a word about their period, told from those of a minute.

One response proves nothing: a window of a minute ends within a second, too, and of a bucket that is empty both say the
same. Over some seconds what refills steadily shows it: the used share of the limit is the time to its reset. Counted in
this worker alone; what another one has not found out yet is taken for a minute's, which is too slow and never too fast.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from understudy.worker.failures import LimitSignals
from understudy.worker.failures.limits import CLOSE, MINUTE_S
from understudy.worker.limits.latest import Latest
from understudy.worker.limits.limiter import Deployment

SECOND_S = 1.0
CLEAR_S = 0.8
"""A reset that is further away may as well be that of a bucket of a second's worth in a limit of a minute."""

PROVED_BY = 3
PROVED_AFTER_S = 2.0
"""The last second of a minute is over by then."""


@dataclass(slots=True)
class _Row:
    """Responses in a row whose numbers are a second's. `since`: monotonic seconds."""

    since: float
    count: int = 0
    proved: bool = False


class ToldPeriods:
    """Remembers only what looks like a limit of a second."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._rows: Latest[tuple[str, str, str], _Row] = Latest()

    def named(self, deployment: Deployment, told: LimitSignals) -> LimitSignals:
        """What a response of this deployment told, with the periods that its numbers and earlier ones prove."""
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
    """None: the numbers say nothing; whole seconds are rounded."""
    if reset_s > SECOND_S * (1 + CLOSE):
        return False
    if not 0 < reset_s <= CLEAR_S or remaining >= limit:
        return None
    return abs(limit * reset_s / (limit - remaining) / SECOND_S - 1) <= CLOSE
