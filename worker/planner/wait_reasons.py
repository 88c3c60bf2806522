"""What open batches wait for: found out in each pass of the planner, told to the ledger when it is news.

A batch waits when it has jobs that may start and none of them has a ticket. Pure, but for the memory of what was told.
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
    no_credential,
)
from understudy.models.records import Waiting
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.worker.planner.plan import StepOutlook, reachable

WORTH_TELLING_S = 1.0
"""A pause between two tickets of a batch that moves slowly is no wait."""

TELL_EVERY_S = 1.0
"""The ledger is told at most so often, of all batches together."""

AGAIN_AFTER_S = 2.0
"""What lasts is told again, so that a reader sees that somebody still plans."""

TELL_AT_MOST = 500


def waits_for(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> Waiting:
    """Why no job of this chain is staged. The step that can start first is named."""
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
    """Data rules allow no step until somebody changes the configuration."""
    return None if broken is None else Waiting(f"{broken}, and no other step may be asked", RULES)


def _held(step: Step, at: StepOutlook) -> Waiting:
    if at.hold is None:
        return Waiting(f"other jobs go first at {step}", TURN, step.provider, step.model, at.account)
    reason = f"{HOLD_WORDS[at.hold]} at {step}"
    return Waiting(reason, str(at.hold), step.provider, step.model, at.account, at.until)


TOLD_AFTER_S = 10.0
"""What a person must fix is told of when it has lasted so long: a key that is exchanged just now is no news."""

GONE_AFTER_S = 30.0
"""A batch goes on when nothing has blocked it for so long: a single job that probes a credential is no sign of it."""

MOVED_AFTER_S = 2.0
"""Nobody probes a budget or a data rule: a batch that waited for one goes on when its jobs are staged again, unless it
waits anew at once."""


class Blocked:
    """Which batches only a person can let go on. Times are monotonic seconds.

    The ledger knows what was told; this is the memory of the worker that plans.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._seen_at: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._unprobed: set[str] = set()
        self._moved: set[str] = set()  # of these, since they were seen last

    def see(self, waiting: Mapping[str, Waiting], now: float, moving: Collection[str] = ()) -> None:
        """What each batch that waits at this moment waits for, as `WaitReasons.news` is told it. Of those that
        are `moving` jobs are staged, or were a moment ago."""
        self._reasons = {batch_id: what.reason for batch_id, what in waiting.items() if what.hold in WHO_CAN_HELP}
        self._since = {batch_id: self._since.get(batch_id, now) for batch_id in self._reasons}
        self._seen_at |= dict.fromkeys(self._reasons, now)
        self._unprobed -= self._reasons.keys()
        self._unprobed |= {batch_id for batch_id in self._reasons if waiting[batch_id].hold != CREDENTIAL}
        self._moved = (self._moved | self._unprobed.intersection(moving)) - self._reasons.keys()

    def news(self, told: Mapping[str, str], now: float) -> tuple[dict[str, str], list[str]]:
        """The batches that are to be told of as blocked, with the reason, and those that go on. `told` are those that
        the ledger has as blocked."""
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


class WaitReasons:
    """Remembers what was told of each batch. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._told: dict[str, tuple[float, Waiting]] = {}
        self._told_at = float("-inf")

    def news(self, waiting: Mapping[str, Waiting], now: float) -> dict[str, Waiting | None]:
        """What the ledger should be told: batches that wait, and None for those that do no more.

        `waiting` is what each batch that waits at this moment waits for.
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
