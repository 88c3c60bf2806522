"""What a call costs, by the configured prices or by the price list that comes with `genai-prices`, offline."""

from collections.abc import Callable

import genai_prices
from genai_prices.data_snapshot import get_snapshot

from models.settings import Price, Settings
from worker.providers.base import Usage

PRICE_LIST_NAMES = {"gemini": "google", "vertex": "google", "bedrock": "aws", "xai": "x-ai"}
"""Presets whose provider has another id in the price list."""

Quote = Callable[[Usage], float | None]


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
        return self._quotes[deployment](usage)

    def _quote(self, provider: str, preset: str | None, model: str) -> Quote:
        configured = self._settings.providers.get(provider)
        price = configured.prices.get(model) if configured else None
        return _configured(price) if price else _listed(preset or provider, model)


def _configured(price: Price) -> Quote:
    cached_price = price.input if price.cached_input is None else price.cached_input

    def cost(usage: Usage) -> float:
        fresh = max(usage.input_tokens - usage.cached_tokens, 0)
        micros = fresh * price.input + usage.cached_tokens * cached_price + usage.output_tokens * price.output
        return micros / 1_000_000

    return cost


def _listed(name: str, model: str) -> Quote:
    """Calculated by the list itself, which knows tiers and prices that change with the hour."""
    try:
        provider, listed = get_snapshot().find_provider_model(model, None, PRICE_LIST_NAMES.get(name, name), None)
    except LookupError:
        return lambda usage: None

    def cost(usage: Usage) -> float | None:
        counts = genai_prices.Usage(
            input_tokens=max(usage.input_tokens, usage.cached_tokens + usage.cache_write_tokens),
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        return float(listed.calc_price(counts, provider).total_price)

    return cost
