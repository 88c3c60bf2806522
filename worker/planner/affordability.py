"""Remaining budgets during planning: staged jobs draw their expected cost from them. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice, takewhile

from understudy.models.costs.budgets import BATCH, PROVIDER, TENANT, Balance, BudgetKey, covers, in_use, reached
from understudy.models.jobs.submission import SINGLE
from understudy.models.jobs.wait_reasons import BUDGET, TURN, Waiting
from understudy.models.routing.chain import Step
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.planner.outlook import NOWHERE, StepOutlook
from understudy.worker.planner.plan import LaneHeads, steps_of

Cost = Callable[[LaneHeads, Step, Head], float]
"""The expected cost of a job's call at a step of its chain."""

HEADS_LOOKED_AT = 50
"""A batch is out of money if none of this many jobs at its head is affordable."""


class Affordability:
    """The balances of one planning pass. `staged` is the expected cost of jobs with tickets, `cheapest` the cost of
    a job at a step of a provider with a budget, as far as jobs were read recently.
    """

    def __init__(
        self,
        balances: Mapping[BudgetKey, Balance],
        cost: Cost,
        staged: Mapping[BudgetKey, float] | None = None,
        cheapest: Mapping[str, float] | None = None,
    ) -> None:
        self.balances = balances
        self.drawn: dict[str, Mapping[BudgetKey, float]] = {}
        self.cheapest = dict(cheapest or {})
        self._staged = staged or {}
        self._cost = cost
        self._of: dict[tuple[str, str], list[BudgetKey]] = defaultdict(list)
        for subject in balances:
            self._of[subject.kind, subject.name].append(subject)

    def pass_over_spent(self, outlook: Mapping[str, StepOutlook]) -> dict[str, StepOutlook]:
        """The outlook, in which nothing starts at a provider that has spent its budget."""
        seen = dict(outlook)
        for name in self.cheapest.keys() & seen.keys():
            spent = self._spent(self._of_provider(name), self.cheapest[name])
            if spent is not None:
                why = reached(spent, self.balances[spent], self.cheapest[name])
                seen[name] = replace(seen[name], starts=0, blocked=True, why=why)
        return seen

    def payable(self, views: Sequence[LaneHeads], outlook: Mapping[str, StepOutlook]) -> Sequence[LaneHeads]:
        """The lanes, without the jobs that are not affordable. Lanes that share a balance take turns at it.

        A job that may start at one of several steps draws the cost of the most expensive affordable one. A job with a
        waiting client does not wait for spent money: its worker ends it.
        """
        if not self.balances:
            return views
        self.drawn = {}
        free = {
            subject: balance.free_usd - self._staged.get(subject, 0.0) for subject, balance in self.balances.items()
        }
        covered = [self._without_dear_steps(view, outlook) for view in views if self._is_covered(view)]
        steps = {view.lane: steps_of(view, outlook) for view in covered}
        paid: dict[Lane, list[Head]] = {view.lane: [] for view in covered}
        for view, head in _in_turns(covered):
            affordable = self._affordable(view, steps[view.lane], head)
            draws = self._draws(view, affordable, head) if affordable or not _fails_without_money(view.lane) else {}
            if draws is not None and all(covers(usd, free[subject]) for subject, usd in draws.items()):
                paid[view.lane].append(head)
                self.drawn[head.id] = draws
                for subject, usd in draws.items():
                    free[subject] -= usd
        self._learn_cheapest(covered)
        seen = {view.lane: _only(view, paid[view.lane]) for view in covered}
        return [seen.get(view.lane, view) for view in views]

    def _affordable(self, view: LaneHeads, steps: Sequence[str], head: Head) -> list[str]:
        """The steps before the first that costs more than the budget of the batch or tenant has left: a job whose
        budget is spent returns to the first step, and does not try a cheaper one."""
        own = self._own(view.lane)
        return list(
            takewhile(lambda step: step == NOWHERE or not self._spent(own, self._usd(view, step, head)), steps)
            if own
            else steps
        )

    def _without_dear_steps(self, view: LaneHeads, outlook: Mapping[str, StepOutlook]) -> LaneHeads:
        """A lane that spills does not spill to what it cannot afford."""
        steps = steps_of(view, outlook)
        affordable = self._affordable(view, steps, view.heads[0]) if view.heads else steps
        if not affordable or len(affordable) == len(steps):
            return view
        too_dear = steps[len(affordable)]
        kept = tuple(takewhile(lambda step: str(step) != too_dear, view.chain.steps))
        return replace(view, chain=view.chain.model_copy(update={"steps": kept}))

    def _draws(self, view: LaneHeads, steps: Sequence[str], head: Head) -> dict[BudgetKey, float] | None:
        """The cost of a job at the most expensive of these steps; None if there is no step."""
        draws: dict[BudgetKey, float] = {}
        for step in steps:
            subjects = self._covering(view.lane, step)
            usd = self._usd(view, step, head) if subjects and step != NOWHERE else 0.0
            draws |= {subject: max(usd, draws.get(subject, 0.0)) for subject in subjects}
        return draws if steps else None

    def _learn_cheapest(self, views: Iterable[LaneHeads]) -> None:
        seen: dict[str, float] = {}
        for view in views:
            for step in view.chain.steps:
                if view.heads and (PROVIDER, step.provider) in self._of:
                    usd = min(self._cost(view, step, head) for head in view.heads[:HEADS_LOOKED_AT])
                    seen[str(step)] = min(usd, seen.get(str(step), usd))
        self.cheapest |= seen

    def reason(self, view: LaneHeads, outlook: Mapping[str, StepOutlook]) -> Waiting | None:
        """Why the job at the head of a lane waits for money; None if it does not, or was not read."""
        if not view.heads or not self.balances:
            return None
        for step in steps_of(view, outlook):
            subjects = self._covering(view.lane, step)
            usd = self._usd(view, step, view.heads[0]) if subjects else 0.0
            if spent := self._spent(subjects, usd):
                return Waiting(reached(spent, self.balances[spent], usd), BUDGET)
            short = next((each for each in subjects if not covers(usd, self.balances[each].free_usd)), None)
            return None if short is None else Waiting(in_use(short, self.balances[short]), TURN)
        return None

    def spent_batches(
        self, views: Sequence[LaneHeads], outlook: Mapping[str, StepOutlook]
    ) -> Iterable[tuple[BudgetKey, float]]:
        """The batches whose budget cannot pay any job at their heads, and the cost of the cheapest of those."""
        cheapest: dict[BudgetKey, float] = {}
        for view in views:
            for subject in self._of.get((BATCH, view.lane.batch_id), ()):
                for step in steps_of(view, outlook)[:1]:
                    heads = () if step == NOWHERE else islice(view.heads, HEADS_LOOKED_AT)
                    costs = [self._usd(view, step, head) for head in heads]
                    cheapest[subject] = min([cheapest.get(subject, float("inf")), *costs])
        for subject, usd in cheapest.items():
            if usd != float("inf") and not covers(usd, self.balances[subject].left_usd):
                yield subject, usd

    def _is_covered(self, view: LaneHeads) -> bool:
        return any(self._covering(view.lane, str(step)) for step in view.chain.steps)

    def _covering(self, lane: Lane, step: str) -> list[BudgetKey]:
        if not self.balances:
            return []
        return [*self._own(lane), *self._of_provider(step)]

    def _own(self, lane: Lane) -> list[BudgetKey]:
        of_batch = [] if lane.batch_id == SINGLE else self._of.get((BATCH, lane.batch_id), [])
        return [*of_batch, *self._of.get((TENANT, lane.tenant), [])]

    def _of_provider(self, step: str) -> Sequence[BudgetKey]:
        return self._of.get((PROVIDER, step.partition("/")[0]), [])

    def _spent(self, subjects: Iterable[BudgetKey], usd: float) -> BudgetKey | None:
        return next((each for each in subjects if not covers(usd, self.balances[each].left_usd)), None)

    def _usd(self, view: LaneHeads, step: str, head: Head) -> float:
        return self._cost(view, next(each for each in view.chain.steps if str(each) == step), head)


def _fails_without_money(lane: Lane) -> bool:
    return lane.batch_id == SINGLE and lane.priority is Priority.INTERACTIVE


def _in_turns(views: Iterable[LaneHeads]) -> Iterator[tuple[LaneHeads, Head]]:
    """The jobs of more urgent lanes first; lanes of equal priority alternate."""
    by_priority = sorted(views, key=_priority)
    for _, group in groupby(by_priority, key=_priority):
        waiting = [(view, iter(view.heads)) for view in group]
        while waiting:
            turn = [(view, heads, head) for view, heads in waiting if (head := next(heads, None)) is not None]
            yield from ((view, head) for view, _, head in turn)
            waiting = [(view, heads) for view, heads, _ in turn]


def _priority(view: LaneHeads) -> int:
    return view.lane.priority


def _only(view: LaneHeads, paid: Sequence[Head]) -> LaneHeads:
    """Jobs behind an unaffordable one are not considered."""
    return replace(view, heads=paid, more=view.more and len(paid) == len(view.heads))


NO_BUDGETS = Affordability({}, lambda *_: 0.0)
