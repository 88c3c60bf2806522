"""What a call costs, by the configured prices or by the price list that comes with `genai-prices`, offline."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from understudy.models.config.settings import Price, Settings
from understudy.models.request.tokens import Usage

PRICE_LIST_NAMES = {"gemini": "google", "vertex": "google", "bedrock": "aws", "xai": "x-ai"}
"""Presets whose provider has another id in the price list."""

MILLION = 1_000_000
Quote = Callable[[Usage], float | None]
Rate = Callable[[int, int], float | None]
"""US dollars of so many input and output tokens, none of them cached, at the price of one moment."""


COST_DIGITS = 12
"""A token of the cheapest model costs more than a billionth of a dollar; beyond this there is only noise."""


class _Price(NamedTuple):
    quote: Quote
    tiers: Sequence[int] = ()  # above so many input tokens, each token has another price


class Pricing:
    """Prices by deployment, each looked up once: a look-up takes longer than everything else about a cost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prices: dict[tuple[str, str | None, str], _Price] = {}

    def cost_usd(self, provider: str, preset: str | None, model: str, usage: Usage) -> float | None:
        """US dollars for one answer of a provider, or None when no price of the model is known."""
        try:
            cost_usd = self._price(provider, preset, model).quote(usage)
        except ValueError:  # counts that contradict each other; an answer must not be lost over its price
            return None
        return None if cost_usd is None else round(cost_usd, COST_DIGITS)

    def rate(self, provider: str, preset: str | None, model: str) -> Rate:
        """The price of this moment, for who asks for a million requests: it costs a microsecond each."""
        quote, tiers = self._price(provider, preset, model)
        if quote(Usage()) is None:
            return lambda input_tokens, output_tokens: None
        linear: dict[int, tuple[float, float, float]] = {}

        def cost(input_tokens: int, output_tokens: int) -> float:
            tier = bisect_left(tiers, input_tokens)
            if tier not in linear:
                linear[tier] = _slopes(quote, max(input_tokens, 1))
            fixed, fresh, output = linear[tier]
            return fixed + input_tokens * fresh + output_tokens * output

        return cost

    def _price(self, provider: str, preset: str | None, model: str) -> _Price:
        deployment = (provider, preset, model)
        if deployment not in self._prices:
            configured = self._settings.providers.get(provider)
            price = configured.prices.get(model) if configured else None
            self._prices[deployment] = _configured(price) if price else _listed(preset or provider, model)
        return self._prices[deployment]


def _configured(price: Price) -> _Price:
    cached = price.input if price.cached_input is None else price.cached_input
    return _Price(_linear(0.0, price.input, cached, price.input, price.output))


def _listed(name: str, model: str) -> _Price:
    # 0.3 s that a command which asks for no price should not wait
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import ModelPrice, TieredPrices

    try:
        provider, listed = get_snapshot().find_provider_model(model, None, PRICE_LIST_NAMES.get(name, name), None)
    except LookupError:
        return _Price(lambda usage: None)

    def calculated(usage: Usage) -> float:
        counts = genai_prices.Usage(
            input_tokens=max(usage.input_tokens, usage.cached_tokens + usage.cache_write_tokens),
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        return float(listed.calc_price(counts, provider).total_price)

    prices = vars(listed.get_prices(datetime.now(UTC))).values()
    tiers = {tier.start for price in prices if isinstance(price, TieredPrices) for tier in price.tiers}
    if tiers or not isinstance(listed.prices, ModelPrice):
        return _Price(calculated, sorted(tiers))
    # Without tiers and hours five calculations say everything, and spare 0.1 ms for each answer.
    fixed = calculated(Usage())
    samples = (
        Usage(input_tokens=MILLION),
        Usage(input_tokens=MILLION, cached_tokens=MILLION),
        Usage(input_tokens=MILLION, cache_write_tokens=MILLION),
        Usage(output_tokens=MILLION),
    )
    return _Price(_linear(fixed, *(calculated(sample) - fixed for sample in samples)))


def _slopes(quote: Quote, input_tokens: int) -> tuple[float, float, float]:
    """US dollars per request, per input and per output token, for requests of about so many input tokens."""
    fixed, short, long = (quote(usage) or 0.0 for usage in (Usage(), Usage(input_tokens), Usage(input_tokens, MILLION)))
    return fixed, (short - fixed) / input_tokens, (long - short) / MILLION


def _linear(fixed: float, fresh: float, cached: float, written: float, output: float) -> Quote:
    """US dollars per answer, and per million tokens of each kind."""

    def cost(usage: Usage) -> float:
        tokens = max(usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
        micros = tokens * fresh + usage.cached_tokens * cached + usage.cache_write_tokens * written
        return fixed + (micros + usage.output_tokens * output) / MILLION

    return cost
