"""What a batch is expected to cost, in words."""

from models.records import Estimate

SMALLEST_SHOWN_USD = 0.0001


def expected_cost(estimate: Estimate, lines: int) -> str:
    """The end of a sentence that begins with what will be run, such as `2,000 lines, `."""
    if estimate.usd is None:
        return "at unknown cost: no price of its models is known"
    words = f"about {dollars(estimate.usd)} expected"
    if estimate.unpriced_lines:
        words += f", without {estimate.unpriced_lines:,} of {lines:,} lines, whose model has no known price"
    return words


def counted(count: int, word: str) -> str:
    """2,000 lines, 1 line."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def dollars(usd: float) -> str:
    if 0 < usd < SMALLEST_SHOWN_USD:
        return f"under ${SMALLEST_SHOWN_USD:.4f}"
    return f"${usd:,.4f}" if usd < 1_000 else f"${usd:,.0f}"
