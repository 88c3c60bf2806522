"""Which step a queued job waits for: settings, limits and disabled credentials in, one reason out."""

from typing import Any

from understudy.models.config.settings import Settings
from understudy.models.disabled import DisabledCredential
from understudy.models.failure import FailureClass, Scope
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.limits.state import AccountState, Cooldown, DayUse, LimitState, Schedule, end_of_day
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.producer.status.waiting import held_at

NOW = 1_800_000_000.0
KEYS = [{"name": "main", "value": "env.A"}, {"name": "spare", "value": "env.B"}]
LEAD = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_keys": KEYS}
SETTINGS = Settings.model_validate({"providers": {"lead": LEAD, "second": {**LEAD, "api_keys": KEYS[:1]}}})
LEAD_STEP, SECOND_STEP = Step(provider="lead", model="m"), Step(provider="second", model="m")


def cooled(account: str, for_s: float, scope: Scope = Scope.MODEL) -> Cooldown:
    provider = account.partition(":")[0]
    account_or_all = None if scope is Scope.PROVIDER else account
    return Cooldown(scope, provider, account_or_all, "m", NOW + for_s, 1, NOW, False, NOW + for_s, "")


def waiting(*cooldowns: Cooldown, aside: tuple[str, ...] = (), **chain: Any) -> Waiting | None:
    rows = [DisabledCredential("lead", key, "", FailureClass.QUOTA, "", "", NOW) for key in aside]
    steps = chain.pop("steps", (LEAD_STEP,))
    state = LimitState(NOW, chain.pop("accounts", {}), cooldowns)
    return held_at(SETTINGS, Chain(steps=steps, **chain), Priority.NORMAL, state, rows)


def test_a_key_that_may_start_is_enough() -> None:
    assert waiting() is None
    assert waiting(cooled("lead:main", 20)) is None


def test_of_several_keys_the_one_that_comes_back_first_is_named() -> None:
    held = waiting(cooled("lead:main", 20), cooled("lead:spare", 5))
    assert held == Waiting("cooling down after a refusal at lead/m", "cooldown", "lead", "m", "lead:spare", NOW + 5)


def test_a_breaker_holds_all_keys() -> None:
    held = waiting(cooled("lead:main", 7, Scope.PROVIDER))
    assert held is not None and (held.hold, held.until) == ("breaker", NOW + 7)


def test_a_full_schedule_holds_until_its_next_start() -> None:
    full = AccountState(tokens=Schedule(free_at=NOW + 3, advertised=60_000.0))
    held = waiting(accounts={("lead:main", "m"): full, ("lead:spare", "m"): full})
    assert held is not None and (held.hold, held.reason) == ("tokens", "tokens per minute are used up at lead/m")
    assert held.until is not None and NOW + 2 <= held.until <= NOW + 3


def test_a_day_that_is_used_up_holds_until_midnight_unless_another_step_is_there() -> None:
    limited = {**LEAD, "api_keys": KEYS[:1], "tokens_per_day": 1_000}
    settings = Settings.model_validate({"providers": {"lead": limited, "second": {**LEAD, "api_keys": KEYS[:1]}}})
    state = LimitState(NOW, {("lead:main", "m"): AccountState(day=DayUse(3, 1_000))}, ())
    held = held_at(settings, Chain(steps=(LEAD_STEP,)), Priority.NORMAL, state, ())
    words = "the daily limit is used up at lead/m"
    assert held == Waiting(words, "day", "lead", "m", "lead:main", end_of_day(NOW))
    assert held_at(settings, Chain(steps=(LEAD_STEP, SECOND_STEP)), Priority.NORMAL, state, ()) is None


def test_a_lead_that_comes_back_within_patience_is_waited_for_and_else_the_next_step_is_asked() -> None:
    both = (LEAD_STEP, SECOND_STEP)
    lead = [cooled("lead:main", 20), cooled("lead:spare", 20)]
    assert waiting(*lead, steps=both) is None
    patient = waiting(*lead, steps=both, patience_s=30.0)
    assert patient is not None and patient.provider == "lead"
    assert waiting(*lead, steps=both, patience_s=30.0, spill=True) is None
    all_held = waiting(*lead, cooled("second:main", 15), steps=both)
    assert all_held is not None and (all_held.provider, all_held.until) == ("second", NOW + 15)


def test_what_is_set_aside_counts_for_nothing() -> None:
    held = waiting(cooled("lead:spare", 5), aside=("main",))
    assert held is not None and held.account == "lead:spare"
    gone = waiting(aside=("main", "spare"))
    assert gone is not None and (gone.hold, gone.until) == ("credential", None)
    removed = waiting(steps=(Step(provider="removed", model="m"),))
    assert removed is not None and "is no longer configured" in removed.reason
