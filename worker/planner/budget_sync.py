"""The planner's side of budgets: syncs Redis with the ledger, provides affordability, pauses batches that spent
their budget."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from understudy.models.costs.budgets import Balance, BudgetKey, covers, of_batch, reached
from understudy.models.routing.chain import Step
from understudy.models.store import Store
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.budgets.reservations import Budgets
from understudy.worker.limits.estimates import ExpectedCosts
from understudy.worker.planner.affordability import Affordability
from understudy.worker.planner.outlook import NOWHERE, StepOutlook
from understudy.worker.planner.plan import LaneHeads, steps_of

log = logging.getLogger(__name__)

SYNC_EVERY_S = 1.0
READING_SHARE = 20
"""A slow read of the ledger is cached for this many times its duration."""

UNKNOWN = Balance(1e9, 0.0, 1e9)
"""Replaces a balance that Redis has just lost: nothing is blocked, and nothing is spent."""

STANDSTILL_S = 3.0
"""A batch with a job refused for money that spends nothing for this long is paused."""


class BudgetSync:
    """Remembers between passes which budgets are open."""

    def __init__(
        self, store: Store, budgets: Budgets, costs: ExpectedCosts, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._costs = costs
        self._monotonic = monotonic
        self._subjects: Sequence[BudgetKey] = ()
        self._known: set[tuple[str, str]] = set()  # batches and tenants of the lanes at the latest comparison
        self._compare_at = float("-inf")
        self._short: dict[BudgetKey, float] = {}
        self._cheapest: Mapping[str, float] = {}
        self._spending: dict[BudgetKey, tuple[float, float]] = {}

    async def affordability(self, lanes: Collection[Lane], staged: Mapping[BudgetKey, float]) -> Affordability:
        """What is left now. `staged` is the expected cost of jobs with tickets."""
        is_new = not {(each.batch_id, each.tenant) for each in lanes} <= self._known
        if is_new:  # its jobs may cost less than those read before
            self._cheapest = {}
        if is_new or self._monotonic() >= self._compare_at:
            await self._compare(lanes)
        seen = await self._budgets.read(self._subjects)
        if len(seen) < len(self._subjects):  # Redis was wiped
            await self._compare(lanes)
            seen = await self._budgets.read(self._subjects)
        balances = {subject: seen[subject][0] if subject in seen else UNKNOWN for subject in self._subjects}
        self._short = {subject: short for subject, (_, short) in seen.items() if short is not None}
        self._watch_spending(balances)
        return Affordability(balances, self._cost, staged, self._cheapest)

    async def pause_spent(
        self,
        affordability: Affordability,
        views: Sequence[LaneHeads],
        outlook: Mapping[str, StepOutlook],
        moving: Collection[str],
    ) -> None:
        """Pause the batches whose budget cannot pay any further job. `moving` are those that have, or just had,
        tickets."""
        self._cheapest = affordability.cheapest
        spent = {
            subject: usd for subject, usd in affordability.spent_batches(views, outlook) if subject.name not in moving
        }
        for subject, usd in {**self._refused_for_long(affordability, views, outlook), **spent}.items():
            balance = affordability.balances[subject]
            reason = reached(subject, balance, usd)
            if await self._store.budgets.pause_spent(subject.name, balance.limit_usd, reason):
                log.warning("%s is paused: %s", subject.name, reason)
                self._compare_at = float("-inf")

    def _refused_for_long(
        self, affordability: Affordability, views: Sequence[LaneHeads], outlook: Mapping[str, StepOutlook]
    ) -> dict[BudgetKey, float]:
        """Batches with a job refused at a step that the planner did not foresee, and that have stopped although other
        jobs could start."""
        now = self._monotonic()
        return {
            subject: self._short[subject]
            for subject in {of_batch(view.lane.batch_id) for view in views if _could_start(view, outlook)}
            if subject in self._short
            and not covers(self._short[subject], affordability.balances[subject].left_usd)
            and now - self._spending[subject][1] >= STANDSTILL_S
        }

    def _watch_spending(self, balances: Mapping[BudgetKey, Balance]) -> None:
        """Since when each balance has been unchanged."""
        now = self._monotonic()
        self._spending = {
            subject: known
            if (known := self._spending.get(subject)) and known[0] == balance.spent_usd
            else (balance.spent_usd, now)
            for subject, balance in balances.items()
        }

    async def _compare(self, lanes: Collection[Lane]) -> None:
        """Write the ledger's limits and sums of all open budgets to Redis."""
        began = self._monotonic()
        subjects = [*await self._store.budgets.open_keys(self._budgets.now()), *self._budgets.of_providers()]
        self._subjects = await self._budgets.load(subjects) if subjects else ()
        self._known = {(each.batch_id, each.tenant) for each in lanes}
        ended = self._monotonic()
        self._compare_at = ended + max(SYNC_EVERY_S, READING_SHARE * (ended - began))

    def _cost(self, view: LaneHeads, step: Step, head: Head) -> float:
        batch = view.lane.batch_id or None
        return self._costs.of_job(view.chain, step, batch, head.tokens, head.max_output_tokens)


def _could_start(view: LaneHeads, outlook: Mapping[str, StepOutlook]) -> bool:
    return any(step == NOWHERE or outlook.get(step, StepOutlook()).starts > 0 for step in steps_of(view, outlook))
