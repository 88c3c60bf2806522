"""The expected cost of a call before it is made: learned token counts at today's prices."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from understudy.models.config.catalog import UnknownProvider, resolve_provider
from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import UNKNOWN_USD
from understudy.models.costs.pricing import Pricing
from understudy.models.request.tokens import Usage
from understudy.models.request.tokens import most_output_tokens as tokens_of_answer
from understudy.models.routing.chain import EMBEDDINGS, Chain, Step
from understudy.worker.bounded_mapping import Latest
from understudy.worker.limits.estimates import Estimates

log = logging.getLogger(__name__)


class Costs:
    def __init__(self, settings: Settings, pricing: Pricing, estimates: Estimates) -> None:
        self._settings = settings
        self._pricing = pricing
        self._estimates = estimates
        self._preset = lru_cache(maxsize=1_000)(self._find_preset)
        self._unpriced: Latest[tuple[str, str], None] = Latest()

    def of_job(self, chain: Chain, step: Step, batch: str | None, tokens: int, most_output_tokens: int) -> float:
        """US dollars for one call of a job at a step of its chain; UNKNOWN_USD without a known price."""
        model, most = (step.provider, step.model), tokens_of_answer(step.params) or most_output_tokens
        output = 0 if chain.endpoint == EMBEDDINGS else self._estimates.output_tokens(model, batch, most)
        usage = Usage(input_tokens=self._estimates.input_tokens(model, tokens), output_tokens=output)
        usd = self._pricing.cost_usd(step.provider, self._preset(step.provider), step.model, usage)
        if usd is None:
            self._say_unpriced(step)
            return UNKNOWN_USD
        return usd

    def of_call(self, chain: Chain, step: Step, batch: str | None, tokens: int, body: Mapping[str, Any]) -> float:
        """Like `of_job`, from the request itself."""
        return self.of_job(chain, step, batch, tokens, tokens_of_answer(body))

    def _say_unpriced(self, step: Step) -> None:
        if (step.provider, step.model) not in self._unpriced:
            self._unpriced[step.provider, step.model] = None
            log.warning(
                "%s has no known price, so no budget pays for it; set it under [providers.%s.prices]",
                step,
                step.provider,
            )

    def _find_preset(self, provider: str) -> str | None:
        try:
            return resolve_provider(self._settings, provider).preset
        except UnknownProvider:
            return None
