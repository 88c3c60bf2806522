"""Estimates the tokens of a call from similar calls, by model, and by model and batch; and with them its cost.

Kept in this process only: each worker sees enough calls to learn the same, and a wrong estimate is corrected by the
actual usage a moment later.
"""

import logging
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from math import ceil

from understudy.models.config.presets import PRESETS
from understudy.models.costs.budgets import UNKNOWN_USD
from understudy.models.costs.pricing import Pricing, expected_cost
from understudy.models.request.tokens import TYPICAL_OUTPUT_TOKENS, Usage
from understudy.models.routing.chain import Chain, Step
from understudy.worker.bounded_mapping import Latest

log = logging.getLogger(__name__)

BATCHES_MAX = 1_000
"""Beyond this many batches, the least recently used are forgotten."""

REMEMBERED = 200
ENOUGH = 3
"""Fewer answers than this say nothing about the length of the next."""

SHARE = 0.9
"""We reserve the 90th percentile of recent answer lengths."""

FADE = 0.98
PRIOR_TOKENS = 1_000.0
"""Initial weight of the estimate, in tokens, so that one odd call proves little."""

RATIO_BOUNDS = (0.2, 5.0)

Model = tuple[str, str]
"""Provider and model."""


@dataclass(slots=True)
class _Lengths:
    """The latest answers' output tokens."""

    seen: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _since: int = 0
    _most: int = 0

    def add(self, tokens: int) -> None:
        self.seen.append(tokens)
        self._since += 1

    def most(self) -> int | None:
        """Their SHARE quantile; None while there are too few."""
        if len(self.seen) < ENOUGH:
            return None
        if self._since >= ENOUGH or not self._most:
            self._most = sorted(self.seen)[ceil(SHARE * len(self.seen)) - 1]
            self._since = 0
        return self._most


@dataclass(slots=True)
class _Input:
    """Decaying sums of estimated and of actual tokens."""

    estimated: float = PRIOR_TOKENS
    used: float = PRIOR_TOKENS

    def add(self, estimated: int, used: int) -> None:
        self.estimated = self.estimated * FADE + estimated
        self.used = self.used * FADE + used

    @property
    def ratio(self) -> float:
        low, high = RATIO_BOUNDS
        return min(max(self.used / self.estimated, low), high)


class Estimates:
    """What this worker learned. `estimated` is always the ledger's estimate of a job's input tokens."""

    def __init__(self) -> None:
        self._inputs: Latest[Model, _Input] = Latest()
        self._of_model: Latest[Model, _Lengths] = Latest()
        self._of_batch: Latest[tuple[Model, str], _Lengths] = Latest(BATCHES_MAX)

    def learn(self, model: Model, batch: str | None, estimated: int, usage: Usage) -> None:
        """Record an answered call."""
        if estimated > 0 and usage.input_tokens > 0:
            seen = self._inputs[model] = self._inputs.get(model) or _Input()
            seen.add(estimated, usage.input_tokens)
        lengths = self._of_model[model] = self._of_model.get(model) or _Lengths()
        lengths.add(usage.output_tokens)
        if batch is not None:
            lengths = self._of_batch[model, batch] = self._of_batch.get((model, batch)) or _Lengths()
            lengths.add(usage.output_tokens)

    def input_tokens(self, model: Model, estimated: int) -> int:
        seen = self._inputs.get(model)
        return estimated if seen is None else ceil(estimated * seen.ratio)

    def output_tokens(self, model: Model, batch: str | None = None, most: int = 0) -> int:
        """Output tokens of an answer: learned for the batch, else for the model, else typical. `most`: the allowed
        maximum, or 0."""
        lengths = [
            found.most()
            for found in (self._of_batch.get((model, batch or "")), self._of_model.get(model))
            if found is not None
        ]
        expected = next((each for each in lengths if each is not None), TYPICAL_OUTPUT_TOKENS)
        return min(expected, most) if most else expected

    def tokens_to_reserve(self, model: Model, dialect: str, batch: str | None, estimated: int, most: int) -> int:
        """Input and output tokens. If the provider counts a request's maximum, that is reserved."""
        output = most if most and counts_max_tokens(dialect) else self.output_tokens(model, batch, most)
        return self.input_tokens(model, estimated) + output


def counts_max_tokens(dialect: str) -> bool:
    """Whether the provider of this preset counts a request's `max_tokens` on arrival."""
    preset = PRESETS.get(dialect)
    return preset is not None and preset.max_tokens_count is not None


def keeps_max_tokens(dialect: str) -> bool:
    """Whether it does not refund the part that the answer did not need."""
    preset = PRESETS.get(dialect)
    return preset is not None and preset.max_tokens_count == "kept"


class ExpectedCosts:
    """The expected cost of calls: learned token counts at today's prices."""

    def __init__(self, pricing: Pricing, estimates: Estimates) -> None:
        self._pricing = pricing
        self._estimates = estimates
        self._unpriced: Latest[Model, None] = Latest()

    def of_job(self, chain: Chain, step: Step, batch: str | None, tokens: int, most_output: int) -> float:
        """US dollars for one call of a job at a step of its chain; UNKNOWN_USD without a known price."""
        model, learned = (step.provider, step.model), self._estimates
        tokens, output_tokens = learned.input_tokens(model, tokens), partial(learned.output_tokens, model, batch)
        price = self._pricing.today(step)
        _, usd = expected_cost(price, chain.endpoint, step, tokens, most_output, output_tokens)
        if usd is None and model not in self._unpriced:
            self._unpriced[model] = None
            log.warning(
                "%s has no known price, so no budget pays for it; set it under [providers.%s.prices]",
                *(step, step.provider),
            )
        return UNKNOWN_USD if usd is None else usd
