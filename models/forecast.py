"""What a batch will cost, before its first call: the tokens of its lines, estimated, at today's prices.

Summed line by line, so that memory stays flat however many lines there are. Input tokens are estimated from the
request's size; output tokens are what the request allows, but no more than a typical answer has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models.catalog import UnknownProvider, resolve_provider
from models.chain import EMBEDDINGS, Chain, Step
from models.pricing import Pricing, Rate
from models.records import Estimate, NewJob
from models.settings import Settings
from models.tokens import expected_output_tokens, most_output_tokens

MOST_CHAINS = 1_000
"""Beyond so many different chains in one input, the rest is summed up as one."""

KNOWN_CHAINS = 10_000
REST = ("other chains",)


@dataclass(slots=True)
class StepForecast:
    """What the lines of a chain would cost if this step answered all of them."""

    step: str  # provider/model
    cost_usd: float = 0.0
    unpriced_lines: int = 0


@dataclass(slots=True)
class ChainForecast:
    """The lines that have one chain."""

    steps: list[StepForecast]
    lines: int = 0
    input_tokens: int = 0
    output_tokens: int = 0  # expected of the first step


@dataclass(slots=True)
class _Priced:
    """A chain with what is needed to add a line of it. Holds the chain, so that no other one gets its identity."""

    chain: Chain
    group: ChainForecast
    rates: list[tuple[StepForecast, Rate, int]]  # and the most output tokens that the step itself allows


class Forecast:
    """Sums while lines are read. `every_step` False: only the step that would answer first is reckoned."""

    def __init__(self, settings: Settings, *, every_step: bool = False) -> None:
        self._settings = settings
        self._pricing = Pricing(settings)
        self._steps = None if every_step else 1
        self._known: dict[int, _Priced] = {}
        self._groups: dict[tuple[str, ...], ChainForecast] = {}

    @property
    def chains(self) -> Sequence[ChainForecast]:
        """The chains that lines have, the one of the most lines first."""
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
    def estimate(self) -> Estimate:
        """When the first step of each chain answers."""
        firsts = [group.steps[0] for group in self._groups.values()]
        unpriced = sum(first.unpriced_lines for first in firsts)
        usd = sum(first.cost_usd for first in firsts) if unpriced < self.lines else None
        return Estimate(usd, unpriced)

    def add_all(self, jobs: Iterable[NewJob]) -> None:
        for job in jobs:
            self.add(job)

    def add(self, job: NewJob) -> None:
        priced = self._known.get(id(job.chain)) or self._priced(job.chain)
        embeds = job.chain.endpoint == EMBEDDINGS
        expected = None
        for step, rate, most in priced.rates:
            output = 0 if embeds else expected_output_tokens(most or job.max_output_tokens)
            expected = output if expected is None else expected
            cost_usd = rate(job.tokens, output)
            if cost_usd is None:
                step.unpriced_lines += 1
            else:
                step.cost_usd += cost_usd
        priced.group.lines += 1
        priced.group.input_tokens += job.tokens
        priced.group.output_tokens += expected or 0

    def _priced(self, chain: Chain) -> _Priced:
        if len(self._known) >= KNOWN_CHAINS:
            self._known.clear()
        steps = chain.steps[: self._steps]
        group = self._group(tuple(map(str, steps)))
        rates = [
            (into, self._rate(step), most_output_tokens(step.params))
            for into, step in zip(group.steps, steps, strict=False)  # those of the rest have one
        ]
        priced = self._known[id(chain)] = _Priced(chain, group, rates)
        return priced

    def _group(self, names: tuple[str, ...]) -> ChainForecast:
        if names not in self._groups and len(self._groups) >= MOST_CHAINS:
            names = REST
        if names not in self._groups:
            self._groups[names] = ChainForecast([StepForecast(name) for name in names])
        return self._groups[names]

    def _rate(self, step: Step) -> Rate:
        try:
            preset = resolve_provider(self._settings, step.provider).preset
        except UnknownProvider:  # it was configured when the batch that is tried again was accepted
            preset = None
        return self._pricing.rate(step.provider, preset, step.model)
