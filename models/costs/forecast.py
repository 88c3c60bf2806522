"""Forecasts the cost of a batch before its first call: the estimated tokens of its lines at today's prices.

Summed line by line, so memory use does not grow with the number of lines. Input tokens are estimated from the request's
size; output tokens are the request's maximum, capped at a typical answer, which is the mean of the answers so far where
there are any.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

from understudy.models.config.settings import Settings
from understudy.models.costs.pricing import Pricing, Rate, expected_cost
from understudy.models.jobs.submission import Estimate, NewJob
from understudy.models.jobs.views import DeploymentTally
from understudy.models.request.tokens import TYPICAL_OUTPUT_TOKENS, expected_output_tokens
from understudy.models.routing.chain import Chain, Step

MOST_CHAINS = 1_000
"""Beyond this many distinct chains in one input, the rest are summed up as one."""

KNOWN_CHAINS = 10_000
REST = ("other chains",)
ANY_MODEL = ""


@dataclass(slots=True)
class StepForecast:
    """The cost if this step answered all lines of a chain, and how many it would answer as the first choice."""

    step: str  # provider/model
    first: int = 0
    cost_usd: float = 0.0
    unpriced_lines: int = 0


@dataclass(slots=True)
class ChainForecast:
    """The lines that share a chain. Expects each line to be answered by the step that would be tried first."""

    steps: list[StepForecast]
    lines: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    priced_lines: int = 0
    unpriced_lines: int = 0


@dataclass(slots=True)
class _Priced:
    """A chain with everything needed to add a line. Keeps the chain alive so that its `id()` is not reused."""

    chain: Chain
    group: ChainForecast
    rates: Sequence[tuple[StepForecast, Rate, Callable[[int], int]]]  # and output tokens expected with a maximum


class Forecast:
    """Accumulates while lines are read. `every_step`: also the cost if each step answered everything. `answered`: what
    earlier lines of the same kind got, which tells how long answers are."""

    def __init__(
        self, settings: Settings, *, every_step: bool = False, answered: Iterable[DeploymentTally] = ()
    ) -> None:
        self._pricing = Pricing(settings)
        self._every_step = every_step
        self._typical = _mean_output_tokens(answered)
        self._known: dict[int, _Priced] = {}
        self._groups: dict[tuple[str, ...], ChainForecast] = {}

    @property
    def chains(self) -> Sequence[ChainForecast]:
        """The chains in use, the one with the most lines first."""
        return sorted(self._groups.values(), key=lambda group: -group.lines)

    @property
    def lines(self) -> int:
        return sum(group.lines for group in self._groups.values())

    @property
    def input_tokens(self) -> int:
        return sum(group.input_tokens for group in self._groups.values())

    @property
    def output_tokens(self) -> int:
        return sum(group.output_tokens for group in self._groups.values())

    @property
    def length_known(self) -> bool:
        """Whether earlier answers tell how long answers are."""
        return bool(self._typical)

    @property
    def estimate(self) -> Estimate:
        groups = self._groups.values()
        unpriced = sum(group.unpriced_lines for group in groups)
        known = any(group.priced_lines for group in groups) or (self.lines and not unpriced)
        return Estimate(sum(group.cost_usd for group in groups) if known else None, unpriced)

    def add_all(self, jobs: Iterable[NewJob]) -> None:
        for job in jobs:
            self.add(job)

    def add(self, job: NewJob, able: Sequence[int] | None = None) -> None:
        """`able`: indices of the steps that can serve it, if not all can; a line that no step can serve costs
        nothing."""
        priced = self._known.get(id(job.chain)) or self._priced(job.chain)
        group = priced.group
        group.lines += 1
        group.input_tokens += job.tokens
        if able is not None and not able:
            return
        first = able[0] if able else 0
        if job.chain.order == "cheapest":
            first = _cheapest(priced, job, able or range(len(priced.rates)))
        output, cost_usd = _answer(priced, job, first)
        group.output_tokens += output
        if cost_usd is None:
            group.unpriced_lines += 1
        else:
            group.priced_lines += 1
            group.cost_usd += cost_usd
        if self._every_step:
            _add_every_step(priced, job, first)

    def _priced(self, chain: Chain) -> _Priced:
        if len(self._known) >= KNOWN_CHAINS:
            self._known.clear()
        group = self._group(tuple(map(str, chain.steps)))
        rates = [
            (
                group.steps[min(index, len(group.steps) - 1)],
                self._pricing.rate(step.provider, step.model),
                partial(expected_output_tokens, typical=self._typical_output_tokens(step)),
            )
            for index, step in enumerate(chain.steps)
        ]
        priced = self._known[id(chain)] = _Priced(chain, group, rates)
        return priced

    def _group(self, names: tuple[str, ...]) -> ChainForecast:
        if names not in self._groups and len(self._groups) >= MOST_CHAINS:
            names = REST
        if names not in self._groups:
            self._groups[names] = ChainForecast([StepForecast(name) for name in names])
        return self._groups[names]

    def _typical_output_tokens(self, step: Step) -> int:
        """The mean of this model's answers so far; else of all answers; else what is typical anywhere."""
        return self._typical.get(str(step)) or self._typical.get(ANY_MODEL) or TYPICAL_OUTPUT_TOKENS


def _mean_output_tokens(answered: Iterable[DeploymentTally]) -> dict[str, int]:
    """Mean output tokens of an answer, rounded up, by provider/model and for ANY_MODEL."""
    tokens: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for each in answered:
        for name in (f"{each.provider}/{each.model}", ANY_MODEL):
            tokens[name] += each.output_tokens
            answers[name] += each.answered
    return {name: ceil(tokens[name] / count) for name, count in answers.items() if count and tokens[name]}


def _answer(priced: _Priced, job: NewJob, step: int) -> tuple[int, float | None]:
    """The expected output tokens of a step, and the cost of its answer."""
    _, rate, output_tokens = priced.rates[step]
    chain = priced.chain
    return expected_cost(rate, chain.endpoint, chain.steps[step], job.tokens, job.max_output_tokens, output_tokens)


def _cheapest(priced: _Priced, job: NewJob, able: Iterable[int]) -> int:
    costs = {step: _answer(priced, job, step)[1] for step in able}
    return min(costs, key=lambda step: float("inf") if costs[step] is None else costs[step] or 0.0)


def _add_every_step(priced: _Priced, job: NewJob, first: int) -> None:
    priced.rates[first][0].first += 1
    for index, (into, *_) in enumerate(priced.rates):
        _, cost_usd = _answer(priced, job, index)
        if cost_usd is None:
            into.unpriced_lines += 1
        else:
            into.cost_usd += cost_usd
