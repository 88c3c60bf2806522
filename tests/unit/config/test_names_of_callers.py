"""Callers may use any model name: what a worker remembers by name is bounded, and names in use stay."""

from random import Random

import pytest

from understudy.models.config.secrets import Secrets
from understudy.models.config.settings import Settings
from understudy.worker.bounded_mapping import MODELS_MAX, Latest
from understudy.worker.failures import LimitSignals
from understudy.worker.limits.breaker import BREAK_AFTER, HardFailures
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.grants import Deployment
from understudy.worker.limits.header_periods import AdvertisedPeriods
from understudy.worker.limits.latency import Latencies

NAMES = [f"m{number}" for number in range(MODELS_MAX + 100)]


def deployment(model: str) -> Deployment:
    return Deployment("alpha", model, "main", "alpha")


def test_what_is_in_use_is_not_forgotten() -> None:
    kept: Latest[str, int] = Latest(3)
    for number, name in enumerate("abcadae"):
        kept[name] = number
    assert list(kept.items()) == [("d", 4), ("a", 5), ("e", 6)]


def test_calls_to_models_of_any_name_are_counted_for_the_latest_of_them() -> None:
    pool = CredentialPool(Settings(), Secrets({}), lambda: 0.0, Random(7))
    for name in NAMES:
        pool.begun(deployment(name))
        pool.begun(deployment("busy"))
    assert len(pool._failing) == MODELS_MAX
    assert pool.begun(deployment("busy")) == len(NAMES) + 1


def test_steps_that_were_to_be_measured_are_remembered_for_the_latest_of_them() -> None:
    latencies = Latencies(None)  # type: ignore[arg-type]  # Redis is not asked
    for name in NAMES:
        latencies.measure(name)
    assert len(latencies._measured_since) == MODELS_MAX and latencies.is_measured(NAMES[-1])


def test_periods_that_headers_tell_are_remembered_for_the_latest_models() -> None:
    periods = AdvertisedPeriods(lambda: 0.0)
    for name in NAMES:
        periods.named(deployment(name), LimitSignals(requests_limit=10, requests_remaining=5, requests_reset_s=0.5))
    assert len(periods._rows) == MODELS_MAX


@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_call_that_ends_after_its_model_was_forgotten_counts_as_before(is_remembered: bool) -> None:
    failing = HardFailures()
    numbers = [failing.begin() for _ in range(100)]
    if not is_remembered:
        failing = HardFailures()
    failing.saw_answer(numbers[-1], "acme", 0.0)
    verdicts = [failing.saw_failure(failing.begin(), "acme", 0.0) for _ in range(BREAK_AFTER)]
    assert verdicts == [False] * (BREAK_AFTER - 1) + [True]
