"""The cost of an answer, by configured prices and by the price list."""

import genai_prices
import pytest

from understudy.models.config.provider_settings import Price, Provider
from understudy.models.config.settings import Settings
from understudy.models.costs.pricing import Pricing
from understudy.worker.providers.base import Usage

PRICES = {"m": Price(input=1.0, output=2.0, cached_input=0.1), "plain": Price(input=1.0, output=2.0)}
SETTINGS = Settings(providers={"mine": Provider(kind="openai", base_url="http://127.0.0.1:1/v1", prices=PRICES)})
USAGE = Usage(input_tokens=1_000_000, output_tokens=500_000, cached_tokens=400_000)


@pytest.mark.parametrize(("model", "dollars"), [("m", 0.6 + 0.04 + 1.0), ("plain", 2.0)])
def test_configured_prices_count_and_cached_tokens_have_their_own(model: str, dollars: float) -> None:
    assert Pricing(SETTINGS).cost_usd("mine", model, USAGE) == pytest.approx(dollars)


@pytest.mark.parametrize(
    ("provider", "model"), [("mine", "else"), ("ollama", "llama3"), ("anthropic", "no-such-model")]
)
def test_an_unknown_price_is_none_and_not_zero(provider: str, model: str) -> None:
    assert Pricing(SETTINGS).cost_usd(provider, model, USAGE) is None


@pytest.mark.parametrize(
    ("preset", "listed_as", "model"),
    [
        ("openai", "openai", "gpt-4o-mini"),
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "google", "gemini-2.5-pro"),
        ("bedrock", "aws", "us.amazon.nova-micro-v1:0"),
        ("xai", "x-ai", "grok-3-mini"),
        ("perplexity", "perplexity", "sonar"),
    ],
)
@pytest.mark.parametrize("usage", [Usage(1000, 100, 500), Usage(300_000, 9, 0), Usage(900, 5, 100, 200)])
def test_listed_prices_are_those_of_the_list_under_the_presets_name(
    preset: str, listed_as: str, model: str, usage: Usage
) -> None:
    counts = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    expected = float(genai_prices.calc_price(counts, model, provider_id=listed_as).total_price)
    assert expected > 0
    pricing = Pricing(Settings(providers={"any-name": Provider(preset=preset)}))
    assert pricing.cost_usd("any-name", model, usage) == pytest.approx(expected)


def test_a_provider_outside_the_catalog_has_the_listed_prices_of_its_protocol() -> None:
    own = Provider(kind="gemini", base_url="http://127.0.0.1:1/v1")
    pricing = Pricing(Settings(providers={"vertex": own, "gemini": Provider()}))
    costs = [pricing.cost_usd(name, "gemini-2.5-flash", Usage(1000, 100)) for name in ("vertex", "gemini")]
    assert costs[0] == costs[1] and costs[0]


def test_more_cached_tokens_than_input_still_have_a_price() -> None:
    cost = Pricing(SETTINGS).cost_usd("anthropic", "claude-sonnet-4-5", Usage(10, 1, 500))
    assert cost is not None
    assert cost > 0
