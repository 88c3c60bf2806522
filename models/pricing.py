"""What a call costs, by the configured prices or by the price list that comes with `genai-prices`, offline."""

from collections.abc import Callable

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from models.settings import Price, Settings
from models.tokens import Usage

PRICE_LIST_NAMES = {"gemini": "google", "vertex": "google", "bedrock": "aws", "xai": "x-ai"}
"""Presets whose provider has another id in the price list."""

MILLION = 1_000_000
Quote = Callable[[Usage], float | None]


COST_DIGITS = 12
"""A token of the cheapest model costs more than a billionth of a dollar; beyond this there is only noise."""


class Pricing:
    """Prices by deployment, each looked up once: a look-up takes longer than everything else about a cost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._quotes: dict[tuple[str, str | None, str], Quote] = {}

    def cost_usd(self, provider: str, preset: str | None, model: str, usage: Usage) -> float | None:
        """US dollars for one answer of a provider, or None when no price of the model is known."""
        deployment = (provider, preset, model)
        if deployment not in self._quotes:
            self._quotes[deployment] = self._quote(*deployment)
        try:
            cost_usd = self._quotes[deployment](usage)
        except ValueError:  # counts that contradict each other; an answer must not be lost over its price
            return None
        return None if cost_usd is None else round(cost_usd, COST_DIGITS)

    def _quote(self, provider: str, preset: str | None, model: str) -> Quote:
        configured = self._settings.providers.get(provider)
        price = configured.prices.get(model) if configured else None
        return _configured(price) if price else _listed(preset or provider, model)


def _configured(price: Price) -> Quote:
    cached = price.input if price.cached_input is None else price.cached_input
    return _linear(0.0, price.input, cached, price.input, price.output)


def _listed(name: str, model: str) -> Quote:
    try:
        provider, listed = get_snapshot().find_provider_model(model, None, PRICE_LIST_NAMES.get(name, name), None)
    except LookupError:
        return lambda usage: None

    def calculated(usage: Usage) -> float:
        counts = genai_prices.Usage(
            input_tokens=max(usage.input_tokens, usage.cached_tokens + usage.cache_write_tokens),
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        return float(listed.calc_price(counts, provider).total_price)

    if not isinstance(listed.prices, ModelPrice) or any(
        isinstance(price, TieredPrices) for price in vars(listed.prices).values()
    ):
        return calculated
    # Without tiers and hours five calculations say everything, and spare 0.1 ms for each answer.
    fixed = calculated(Usage())
    samples = (
        Usage(input_tokens=MILLION),
        Usage(input_tokens=MILLION, cached_tokens=MILLION),
        Usage(input_tokens=MILLION, cache_write_tokens=MILLION),
        Usage(output_tokens=MILLION),
    )
    return _linear(fixed, *(calculated(sample) - fixed for sample in samples))


def _linear(fixed: float, fresh: float, cached: float, written: float, output: float) -> Quote:
    """US dollars per answer, and per million tokens of each kind."""

    def cost(usage: Usage) -> float:
        tokens = max(usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
        micros = tokens * fresh + usage.cached_tokens * cached + usage.cache_write_tokens * written
        return fixed + (micros + usage.output_tokens * output) / MILLION

    return cost
