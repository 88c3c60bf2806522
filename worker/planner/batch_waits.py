"""Why open batches wait: determined in each pass of the planner, reported to the ledger when they change.

A batch waits when it has jobs that may start and none of them has a ticket. Pure, except for remembering what was
reported.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from understudy.models.jobs.wait_reasons import (
    BUDGET,
    CREDENTIAL,
    HOLD_WORDS,
    RULES,
    TURN,
    WHO_CAN_HELP,
    Waiting,
    no_credential,
)
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.worker.planner.outlook import StepOutlook, reachable

WORTH_TELLING_S = 1.0
"""A pause between two tickets of a slowly moving batch is not a wait."""

TELL_EVERY_S = 1.0
"""The ledger is updated at most this often, for all batches together."""

AGAIN_AFTER_S = 2.0
"""A lasting reason is reported again, so that a reader can see that a planner is running."""

TELL_AT_MOST = 500


def waits_for(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> Waiting:
    """Why no job of this chain is staged. Names the step that can start first."""
    seen = [(step, at) for step, at in reachable(chain, priority, outlook) if not at.missing]
    blocked = [(step, at) for step, at in seen if at.blocked]
    others = [(step, at) for step, at in seen if not at.blocked]
    if others:
        return _held(*min(others, key=lambda each: (each[1].cooled_for_s or 0.0, each[1].until or 0.0)))
    if blocked:
        step, at = blocked[0]
        if at.why is not None:
            return Waiting(at.why, BUDGET, step.provider, step.model)
        return Waiting(no_credential(step.provider, at.blocked_by), CREDENTIAL, step.provider, step.model)
    return Waiting("other jobs are staged first", TURN)


def waits_for_rule(broken: str | None) -> Waiting | None:
    """Data rules allow no step until someone changes the configuration."""
    return None if broken is None else Waiting(f"{broken}, and no other step is allowed", RULES)


def _held(step: Step, at: StepOutlook) -> Waiting:
    if at.hold is None:
        return Waiting(f"other jobs are first in line at {step}", TURN, step.provider, step.model, at.account)
    reason = f"{HOLD_WORDS[at.hold]} at {step}"
    return Waiting(reason, str(at.hold), step.provider, step.model, at.account, at.until)


TOLD_AFTER_S = 10.0
"""A blocked batch is announced after this long: a key that is just being replaced is not news."""

GONE_AFTER_S = 30.0
"""A batch counts as unblocked when nothing has blocked it for this long: a single job that probes a credential
proves nothing."""

MOVED_AFTER_S = 2.0
"""Budgets and data rules are not probed: a batch that waited for one is unblocked when its jobs are staged again,
unless it is blocked again at once."""


class Blocked:
    """Batches that only a person can unblock. Times are monotonic seconds.

    The ledger knows what was announced; this is the memory of the worker that plans.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._seen_at: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._unprobed: set[str] = set()
        self._moved: set[str] = set()  # of these, since they were last seen

    def see(self, waiting: Mapping[str, Waiting], now: float, moving: Collection[str] = ()) -> None:
        """The current wait reason of each waiting batch, as passed to `BatchWaits.news`. Batches in `moving` have,
        or just had, staged jobs."""
        self._reasons = {batch_id: what.reason for batch_id, what in waiting.items() if what.hold in WHO_CAN_HELP}
        self._since = {batch_id: self._since.get(batch_id, now) for batch_id in self._reasons}
        self._seen_at |= dict.fromkeys(self._reasons, now)
        self._unprobed -= self._reasons.keys()
        self._unprobed |= {batch_id for batch_id in self._reasons if waiting[batch_id].hold != CREDENTIAL}
        self._moved = (self._moved | self._unprobed.intersection(moving)) - self._reasons.keys()

    def news(self, told: Mapping[str, str], now: float) -> tuple[dict[str, str], list[str]]:
        """The batches to announce as blocked, with the reason, and those no longer blocked. `told` are those that
        are blocked in the ledger."""
        self._seen_at = {batch_id: self._seen_at.get(batch_id, now) for batch_id in {*told, *self._reasons}}
        blocked = {
            batch_id: reason
            for batch_id, reason in self._reasons.items()
            if told.get(batch_id) != reason and (batch_id in told or now - self._since[batch_id] >= TOLD_AFTER_S)
        }
        self._unprobed &= self._seen_at.keys()
        return blocked, [each for each in told if now - self._seen_at[each] >= self._gone_after_s(each)]

    def _gone_after_s(self, batch_id: str) -> float:
        return MOVED_AFTER_S if batch_id in self._moved else GONE_AFTER_S


class BatchWaits:
    """Remembers what was reported for each batch. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._told: dict[str, tuple[float, Waiting]] = {}
        self._told_at = float("-inf")

    def news(self, waiting: Mapping[str, Waiting], now: float) -> dict[str, Waiting | None]:
        """What to report to the ledger: waiting batches, and None for those that no longer wait.

        `waiting` has the current wait reason of each waiting batch.
        """
        self._since = {batch_id: self._since.get(batch_id, now) for batch_id in waiting}
        if now - self._told_at < TELL_EVERY_S:
            return {}
        news: dict[str, Waiting | None] = dict.fromkeys(_up_to_most(self._told.keys() - waiting.keys()))
        due = (batch_id for batch_id, what in waiting.items() if self._is_news(batch_id, what, now))
        longest_ago = sorted(due, key=lambda batch_id: self._told[batch_id][0] if batch_id in self._told else 0.0)
        news |= {batch_id: waiting[batch_id] for batch_id in longest_ago[: TELL_AT_MOST - len(news)]}
        for batch_id, what in news.items():
            if what is None:
                del self._told[batch_id]
            else:
                self._told[batch_id] = (now, what)
        if news:
            self._told_at = now
        return news

    def _is_news(self, batch_id: str, what: Waiting, now: float) -> bool:
        if now - self._since[batch_id] < WORTH_TELLING_S:
            return False
        told_at, told = self._told.get(batch_id, (now, None))
        return told is None or now - told_at >= AGAIN_AFTER_S or replace(told, until=None) != replace(what, until=None)


def _up_to_most(batch_ids: Collection[str]) -> list[str]:
    return sorted(batch_ids)[:TELL_AT_MOST]
