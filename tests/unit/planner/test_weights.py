"""Weights as people write them."""

import pytest

from understudy.models.tenants import weight_of


@pytest.mark.parametrize(("text", "weight"), [("1", 1.0), ("0.01", 0.01), ("100", 100.0), ("2.5", 2.5)])
def test_a_weight_is_a_positive_number_within_bounds(text: str, weight: float) -> None:
    assert weight_of(text) == weight


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "100.1", "0.009", "heavy", ""])
def test_anything_else_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not a valid weight; use a number from 0.01 to 100"):
        weight_of(text)
