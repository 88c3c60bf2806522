"""Expected and actual costs as text."""

from understudy.models.records import Estimate

SMALLEST_SHOWN_USD = 0.0001


def expected_cost(estimate: Estimate, lines: int) -> str:
    """The end of a sentence that begins with what will run, such as `2,000 lines, `."""
    if estimate.usd is None:
        return "cost unknown: none of its models has a known price"
    words = f"about {dollars(estimate.usd)} expected"
    if estimate.unpriced_lines:
        words += f", excluding {estimate.unpriced_lines:,} of {lines:,} lines, whose model has no known price"
    return words


def counted(count: int, word: str, plural: str | None = None) -> str:
    """2,000 lines, 1 line."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def spent(usd: float, unpriced_calls: int) -> str:
    """The cost of calls, and the number of calls of unknown cost: `$0.0123`, `$0.0123 + 40 calls of unknown cost`."""
    if not unpriced_calls:
        return _exactly(usd)
    unknown = f"{counted(unpriced_calls, 'call')} of unknown cost"
    return f"{_exactly(usd)} + {unknown}" if usd else unknown


def spent_briefly(usd: float, unpriced_calls: int) -> str:
    """As `spent`, for a column: `$0.0123`, `$0.0123 + ?`, `unknown`."""
    if not unpriced_calls:
        return _exactly(usd)
    return f"{_exactly(usd)} + ?" if usd else "unknown"


def dollars(usd: float) -> str:
    """An estimate: `$0.0123`, `$12,345`."""
    return _exactly(usd) if usd < 1_000 else f"${usd:,.0f}"


def _exactly(usd: float) -> str:
    """A cost above zero is never shown as zero."""
    return f"under ${SMALLEST_SHOWN_USD:.4f}" if 0 < usd < SMALLEST_SHOWN_USD else f"${usd:,.4f}"
