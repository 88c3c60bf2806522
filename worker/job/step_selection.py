"""Which steps of a chain may serve a job, in which order they are tried, and whether a batch is nearly done, so that a
slow step is hedged.
"""

import math
import time

from understudy.models.config.settings import Settings
from understudy.models.costs.pricing import Pricing, expected_cost
from understudy.models.request.needs import Needs
from understudy.models.routing.chain import Chain, Step
from understudy.models.routing.suitability import Suitability, WhyNot
from understudy.models.store import Store, StoreOutage
from understudy.worker.limits.latency import Latencies

LOOK_EVERY_S = 1.0


class StepSelection:
    """By today's configuration and prices, and by the latencies measured across the fleet."""

    def __init__(self, settings: Settings, pricing: Pricing, latencies: Latencies) -> None:
        self.latencies = latencies
        self._pricing = pricing
        self._suitability = Suitability(settings)

    def why_not(self, chain: Chain, step: Step, needs: Needs) -> WhyNot | None:
        """Why this step may not be used. Checked before every call, however the step was reached."""
        return self._suitability.why_not(chain, step, needs)

    def order(self, chain: Chain, needs: Needs, *, for_a_job: bool = True) -> tuple[int, ...]:
        """The steps by index, in the order in which to try them. `for_a_job` False: only a preview."""
        steps = range(len(chain.steps))
        match chain.order:
            case "cheapest":
                return tuple(sorted(steps, key=lambda step: self._cost_usd(chain, chain.steps[step], needs)))
            case "fastest":
                return self._by_latency(chain, needs, for_a_job)
        return tuple(steps)

    def planned(self, chain: Chain, tokens: int) -> tuple[Chain, str | None]:
        """A chain as jobs of this many tokens would go through it now; with the rule that every step breaks, if so."""
        if chain.order == "chain" and not (chain.require or chain.forbid):
            return chain, None
        order = self.order(chain, Needs(input_tokens=tokens), for_a_job=False)
        broken = {step: self._suitability.broken_rule(chain, chain.steps[step]) for step in order}
        steps = tuple(chain.steps[step] for step in order if broken[step] is None)
        if not steps:
            return chain, broken[0]
        return chain.model_copy(update={"steps": steps}), None

    def _cost_usd(self, chain: Chain, step: Step, needs: Needs) -> float:
        """For this job, as far as its tokens are known; infinite without a known price."""
        price = self._pricing.today(step)
        _, cost_usd = expected_cost(price, chain.endpoint, step, needs.input_tokens, needs.output_tokens)
        return float("inf") if cost_usd is None else cost_usd

    def _by_latency(self, chain: Chain, needs: Needs, for_a_job: bool) -> tuple[int, ...]:
        """An unmeasured step is tried by one job first; until that answers, it sorts last."""
        found = {}
        for index, step in enumerate(chain.steps):
            known = self.latencies.of(str(step))
            unmeasured = (2, 0.0) if self.latencies.is_measured(str(step)) else (0, 0.0)
            found[index] = (1, known) if known is not None else unmeasured
        order = tuple(sorted(found, key=found.__getitem__))
        if for_a_job:
            first = next((step for step in order if self.why_not(chain, chain.steps[step], needs) is None), None)
            if first is not None and found[first][0] == 0:
                self.latencies.measure(str(chain.steps[first]))
        return order


class NearlyDone:
    """Tells whether a batch is in its last few percent. Cached for a second."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, tuple[float, float]] = {}  # by batch: when checked, the share of unfinished jobs

    async def is_tail(self, batch_id: str, last: float) -> bool:
        """Whether at most this share of the batch's jobs is unfinished. False while the ledger is unavailable."""
        if last <= 0:
            return False
        looked_at, share = self._open.get(batch_id, (-math.inf, 1.0))
        if time.monotonic() - looked_at >= LOOK_EVERY_S:
            now = time.monotonic()
            self._open = {known: seen for known, seen in self._open.items() if now - seen[0] < LOOK_EVERY_S}
            self._open[batch_id] = (now, share)  # so that others do not query in the meantime
            try:
                total, ended = await self._store.batches.ended_of(batch_id)
            except StoreOutage:
                return False
            share = 1.0 - ended / total if total else 1.0
            self._open[batch_id] = (now, share)
        return share <= last
