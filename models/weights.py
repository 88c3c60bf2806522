"""Weights: shares among tenants of one priority and among batches of one tenant."""

LEAST_WEIGHT, MOST_WEIGHT = 0.01, 100.0
USUAL_WEIGHT = 1.0


def weight_of(text: str) -> float:
    """Parse a weight written by a person. Raises ValueError with one sentence."""
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise ValueError(f"'{text[:40]}' is not a valid weight; use a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}")
    return weight
