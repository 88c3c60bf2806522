"""A batch's rate and its estimated time of completion; the same for every command and over HTTP."""

from collections.abc import Mapping

from understudy.models.jobs.views import BatchView
from understudy.models.state import OPEN_BATCH_STATES, TERMINAL_STATES

WINDOW_S = 60.0
"""The rate covers the last minute, or the time since the first call if shorter."""

SHORTEST_WINDOW_S = 1.0

NEW_START_S = 600.0
"""After this long without a call a batch counts as restarted: the pause before does not affect its rate."""


def jobs_per_s(
    ended: Mapping[int, int], now: float, moving_since: float | None, held: tuple[float, float] | None = None
) -> float:
    """Jobs that end per second. `ended` counts ended jobs by minute (unix seconds // 60), for the current minute and
    the one before; `moving_since` is the time of the first call after the last long pause, None if unknown; `held`
    is the last interval in which the batch was paused, which does not count."""
    since = now - WINDOW_S if moving_since is None or moving_since > now else moving_since
    begins = min(max(since, now - WINDOW_S), now - SHORTEST_WINDOW_S)
    minute = int(now // 60)
    turn = minute * 60.0
    active_from = max(since, turn - 60.0)  # when jobs of the minute before may have ended
    before = _moved_s(active_from, turn, held)
    share = 0.0 if begins >= turn or not before else min(_moved_s(max(begins, active_from), turn, held) / before, 1.0)
    moved_s = max(_moved_s(begins, now, held), SHORTEST_WINDOW_S)
    return (ended.get(minute, 0) + ended.get(minute - 1, 0) * share) / moved_s


def _moved_s(start: float, end: float, held: tuple[float, float] | None) -> float:
    """The time between two moments, less the paused interval."""
    held_s = 0.0 if held is None else max(min(held[1], end) - max(held[0], start), 0.0)
    return max(end - start - held_s, 0.0)


def eta_s(view: BatchView) -> float | None:
    """Seconds until completion at the current rate; None without a rate, when ended, or while paused."""
    left = sum(count for state, count in view.counts.items() if state not in TERMINAL_STATES)
    if view.state not in OPEN_BATCH_STATES or view.paused or not view.recent_per_s or not left:
        return None
    return round(left / view.recent_per_s, 1)
