"""The table of what each failure class leads to, and the page that shows it."""

import pytest

from understudy.models.config.docs import page
from understudy.models.failure import TRAITS, FailureClass


def test_every_class_has_a_row() -> None:
    assert list(TRAITS) == list(FailureClass)


@pytest.mark.parametrize("cls", FailureClass)
def test_the_traits_of_a_class_agree_with_each_other(cls: FailureClass) -> None:
    traits = cls.traits
    assert traits.about_credential or not (traits.blocks or traits.probed), "only a credential is disabled and probed"
    assert not (traits.transient and traits.about_credential), "nobody waits for what a person must fix"
    assert traits.transient == (traits.load or traits.trips_breaker), "whatever is waited for slows the others down"
    assert not (traits.load and traits.trips_breaker), "a provider that turns calls away is up"
    assert traits.rerun_elsewhere or not traits.rerun, "another chain is worth at least what the same one is"
    assert not (traits.about_request and (traits.transient or traits.retries)), "the same request is refused again"


@pytest.mark.parametrize(
    ("cls", "row"),
    [
        ("connect", "twice; later | yes | several in a row stop calls for a while | yes |"),
        ("rate_limit", "with another key; later | yes | fewer calls for a while | yes |"),
        ("credential", "with another key | yes | the key is disabled until it is fixed | yes |"),
        ("bad_request", "no | no |  | with another model or chain |"),
        ("crashed", "no | yes |  | no |"),
    ],
)
def test_the_page_says_what_follows_from_a_class(cls: str, row: str) -> None:
    (line,) = [line for line in page().splitlines() if line.startswith(f"| `{cls}` | ")]
    assert line.endswith(f" | {row}")
