"""The cost of a call, and its expected cost before it is made, by configured prices or by the offline price list of
`genai-prices`.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from understudy.models.config.catalog import UnknownProvider, resolve_provider
from understudy.models.config.provider_settings import Price
from understudy.models.config.settings import Settings
from understudy.models.request.tokens import Usage, expected_output_tokens, most_output_tokens
from understudy.models.routing.chain import EMBEDDINGS, Endpoint, Step

PRICE_LIST_NAMES = {"gemini": "google", "bedrock": "aws", "xai": "x-ai"}
"""Presets whose provider has a different id in the price list."""

MILLION = 1_000_000
Quote = Callable[[Usage], float | None]
Rate = Callable[[int, int], float | None]
"""US dollars for the given input and output tokens, none of them cached, at the prices of one moment."""


COST_DIGITS = 12
"""A token of the cheapest model costs more than a billionth of a dollar; further digits are noise."""


def expected_cost(
    price: Rate,
    endpoint: Endpoint,
    step: Step,
    input_tokens: int,
    most_output: int,
    output_tokens: Callable[[int], int] = expected_output_tokens,
) -> tuple[int, float | None]:
    """The output tokens that a call at a step is expected to have, and US dollars for it (None: no known price).

    Forecasts, the order of steps and reservations all ask this. `most_output` is the maximum of output tokens that the
    request states, 0: none; `output_tokens` is what is expected with such a maximum.
    """
    output = 0 if endpoint == EMBEDDINGS else output_tokens(most_output_tokens(step.params) or most_output)
    return output, price(input_tokens, output)


class _Price(NamedTuple):
    quote: Quote
    tiers: Sequence[int] = ()  # above this many input tokens, every token has a different price


class Pricing:
    """Prices by deployment, each looked up once: a look-up takes longer than the rest of a cost calculation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prices: dict[tuple[str, str], _Price] = {}

    def cost_usd(self, provider: str, model: str, usage: Usage) -> float | None:
        """US dollars for one response of a provider, or None if the model has no known price."""
        try:
            cost_usd = self._price(provider, model).quote(usage)
        except ValueError:  # contradictory counts; a response must not be lost over its price
            return None
        return None if cost_usd is None else round(cost_usd, COST_DIGITS)

    def today(self, step: Step) -> Rate:
        """A step's price as a function."""
        return lambda input_tokens, output: self.cost_usd(step.provider, step.model, Usage(input_tokens, output))

    def rate(self, provider: str, model: str) -> Rate:
        """The price of this moment as a function, for callers that price a million requests: it costs a microsecond
        per request."""
        quote, tiers = self._price(provider, model)
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

    def _price(self, provider: str, model: str) -> _Price:
        deployment = (provider, model)
        if deployment not in self._prices:
            configured = self._settings.providers.get(provider)
            price = configured.prices.get(model) if configured else None
            self._prices[deployment] = _configured(price) if price else _listed(self._preset(provider), model)
        return self._prices[deployment]

    def _preset(self, provider: str) -> str:
        try:
            return resolve_provider(self._settings, provider).preset
        except UnknownProvider:  # it was configured when the batch was accepted
            return provider


def _configured(price: Price) -> _Price:
    cached = price.input if price.cached_input is None else price.cached_input
    return _Price(_linear(0.0, price.input, cached, price.input, price.output))


def _listed(name: str, model: str) -> _Price:
    # 0.3 s to import; commands that need no price skip it
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
    # Without tiers and time-of-day prices, five calculations determine the price and save 0.1 ms per answer.
    fixed = calculated(Usage())
    samples = (
        Usage(input_tokens=MILLION),
        Usage(input_tokens=MILLION, cached_tokens=MILLION),
        Usage(input_tokens=MILLION, cache_write_tokens=MILLION),
        Usage(output_tokens=MILLION),
    )
    return _Price(_linear(fixed, *(calculated(sample) - fixed for sample in samples)))


def _slopes(quote: Quote, input_tokens: int) -> tuple[float, float, float]:
    """US dollars per request, per input token and per output token, for requests of about `input_tokens`."""
    fixed, short, long = (quote(usage) or 0.0 for usage in (Usage(), Usage(input_tokens), Usage(input_tokens, MILLION)))
    return fixed, (short - fixed) / input_tokens, (long - short) / MILLION


def _linear(fixed: float, fresh: float, cached: float, written: float, output: float) -> Quote:
    """US dollars per request, and per million tokens of each kind."""

    def cost(usage: Usage) -> float:
        tokens = max(usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
        micros = tokens * fresh + usage.cached_tokens * cached + usage.cache_write_tokens * written
        return fixed + (micros + usage.output_tokens * output) / MILLION

    return cost
