"""The state of each provider: configuration, ledger and limiter combined."""

import re
from typing import Any

import pytest

from understudy.models.config.settings import Settings
from understudy.models.disabled import DisabledCredential
from understudy.models.failure import FailureClass, Scope
from understudy.models.limits.state import AccountState, Cooldown, DayUse, LimitState, Schedule, end_of_day
from understudy.models.store.metrics import CallCount
from understudy.producer.status import providers_table as show_providers
from understudy.producer.status.provider_state import LedgerPart, provider_documents

NOW = 1_800_000_000.0
KEYS = [{"name": "main", "value": "env.A"}, {"name": "spare", "value": "env.B", "account": "other"}]
LEAD = {
    "kind": "openai",
    "base_url": "http://127.0.0.1:1/v1",
    "api_keys": KEYS,
    "models": ["large"],
    "max_in_flight": 4,
    "limits": [{"account": "other", "requests_per_minute": 600}],
}
SETTINGS = Settings.model_validate({"providers": {"lead": LEAD, "openai": {}}})
FULL = AccountState(requests=Schedule(free_at=NOW + 5.9), in_flight=2)


def live(*cooldowns: Cooldown, **states: AccountState) -> LimitState:
    return LimitState(NOW, {(f"lead:{name}", "large"): state for name, state in states.items()}, cooldowns)


def cooled(scope: Scope, until: float = NOW + 20, in_a_row: int = 1, probing: bool = False) -> Cooldown:
    account = None if scope is Scope.PROVIDER else "lead:main"
    model = None if scope is Scope.ACCOUNT else "large"
    since = NOW - 45
    return Cooldown(scope, "lead", account, model, until, in_a_row, since, probing, until, "rate_limit at lead/large")


def aside(model: str = "", **fields: Any) -> DisabledCredential:
    return DisabledCredential("lead", "main", model, FailureClass.QUOTA, "no money left.", "", NOW - 300, **fields)


def documents(ledger: LedgerPart = LedgerPart(), state: LimitState | None = None) -> dict[tuple[Any, Any], Any]:  # noqa: B008
    return {(row["key"], row["model"]): row for row in provider_documents(SETTINGS, ledger, state)}


def said(rows: dict[tuple[Any, Any], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """As on a wide terminal, with all whitespace collapsed."""
    monkeypatch.setattr(show_providers.time, "time", lambda: NOW)
    show_providers.print_providers(list(rows.values()))
    return re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_each_key_has_its_own_limits_and_a_provider_without_one_says_so() -> None:
    rows = documents()
    assert set(rows) == {("main", "large"), ("spare", "large"), (None, None)}
    assert rows["spare", "large"]["account"] == "lead:other"
    assert rows["spare", "large"]["requests_per_minute"]["limit"] == 600
    assert rows["main", "large"]["requests_per_minute"] == {
        **{"limit": None, "source": "unknown", "until": None, "configured": None}
    }
    assert rows[None, None]["state"] == "no_key"


def test_models_are_those_of_the_configuration_of_open_jobs_of_late_calls_and_of_the_limiter() -> None:
    ledger = LedgerPart(
        aside=[aside("gone")],
        calls=[CallCount("lead", "called", "main", None, 1), CallCount("removed", "x", "main", None, 1)],
        models=[("lead", "queued")],
    )
    state = LimitState(NOW, {("lead:main", "flying"): AccountState(in_flight=1)}, ())
    found = [model for key, model in documents(ledger, state) if key == "main"]
    assert found == ["large", "queued", "called", "flying", "gone"]
    assert ("spare", "flying") not in documents(ledger, state)


def test_calls_of_the_last_minute_are_told_by_how_they_ended() -> None:
    calls = [
        CallCount("lead", "large", "main", None, 90),
        CallCount("lead", "large", "main", FailureClass.RATE_LIMIT, 2),
        CallCount("lead", "large", "main", FailureClass.OVERLOADED, 1),
        CallCount("lead", "large", "main", FailureClass.SERVER, 4),
    ]
    rows = documents(LedgerPart(calls=calls))
    assert rows["main", "large"]["last_minute"] == {"answered": 90, "refused": 3, "failed": 4}
    assert rows["spare", "large"]["last_minute"] == {"answered": 0, "refused": 0, "failed": 0}


def test_without_redis_nothing_is_claimed_of_the_present() -> None:
    row = documents()["main", "large"]
    assert (row["live"], row["state"], row["in_flight"]["now"], row["next_start"]) == (False, "unknown", None, None)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (live(), "ready"),
        (live(main=AccountState(in_flight=4)), "full"),
        (live(main=AccountState(in_flight=2, window=2.9)), "full"),
        (live(cooled(Scope.MODEL)), "cooling"),
        (live(cooled(Scope.ACCOUNT)), "cooling"),
        (live(cooled(Scope.PROVIDER)), "resting"),
        (live(cooled(Scope.MODEL, NOW - 1, 3, probing=True)), "probing"),
    ],
)
def test_one_word_says_what_would_become_of_a_call(state: LimitState, word: str) -> None:
    assert documents(state=state)["main", "large"]["state"] == word


def test_a_key_that_is_set_aside_for_one_model_serves_the_others() -> None:
    rows = documents(LedgerPart(aside=[aside("small")]), live())
    assert (rows["main", "large"]["state"], rows["main", "small"]["state"]) == ("ready", "disabled")


def test_when_the_next_call_may_start_is_told_while_none_may() -> None:
    rows = documents(state=live(other=FULL, main=FULL))
    assert rows["spare", "large"]["next_start"] == pytest.approx(NOW + 5.9 - (1 - 60 / 594), abs=0.001)  # at 99% of 600
    assert (rows["spare", "large"]["state"], rows["main", "large"]["next_start"]) == ("full", None)


def test_a_limit_names_its_source_and_what_it_undercuts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = live(
        other=AccountState(Schedule(learned=588.0)), main=AccountState(Schedule(advertised=1_000.0), in_flight=2)
    )
    words = said(documents(state=state), monkeypatch, capsys)
    assert "lead/large spare 588 of 600, learned unknown 0 of 4 0 ready" in words
    assert "lead/large main 1,000 advertised unknown 2 of 4 0 ready" in words
    assert "openai has no key; set api_keys in its section" in words


def test_what_a_day_has_used_is_told_where_a_day_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daily = {"limits": [{"account": "other", "requests_per_day": 1_000, "tokens_per_day": 50_000}]}
    settings = Settings.model_validate({"providers": {"lead": {**LEAD, **daily}}})
    state = live(other=AccountState(day=DayUse(1_000, 41_500)), main=AccountState(day=DayUse(7, 70)))
    rows = {(row["key"], row["model"]): row for row in provider_documents(settings, LedgerPart(), state)}
    assert (rows["main", "large"]["requests_per_day"], rows["main", "large"]["state"]) == (None, "ready")
    assert (rows["spare", "large"]["next_start"], rows["spare", "large"]["state"]) == (end_of_day(NOW), "full")
    for width in ("140", "70"):
        monkeypatch.setenv("COLUMNS", width)
        words = said(rows, monkeypatch, capsys)
        assert "1,000 of 1,000 requests, 41,500 of 50,000 tokens" in words
        assert "lead/large (account lead:other): limit reached; the next call may start at" in words
    (row, *_) = provider_documents(settings, LedgerPart(), None)[1:]
    assert row["requests_per_day"] == {"limit": 1_000, "used": None, "until": None}


def test_a_day_without_a_limit_is_not_mentioned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "today" not in said(documents(state=live()), monkeypatch, capsys)


def test_a_slow_start_is_told_as_what_may_be_in_flight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = documents(state=live(main=AccountState(in_flight=2, window=2.9), other=AccountState(window=100.0)))
    assert "lead/large main unknown unknown 2 of 2 learned 0 full" in said(rows, monkeypatch, capsys)
    assert rows["spare", "large"]["in_flight"] == {"limit": 4, "source": "configured", "configured": 4, "now": 0}


def test_each_cooldown_is_told_once_with_its_end_its_reason_and_how_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = live(cooled(Scope.MODEL), cooled(Scope.ACCOUNT, NOW + 3_700), cooled(Scope.PROVIDER, in_a_row=4))
    words = said(documents(state=state), monkeypatch, capsys)
    at = show_providers.clock_time(NOW + 20, NOW)
    assert f"lead/large (account lead:main): cooling until {at} (20s more): rate_limit" in words
    assert "account lead:main, all models: cooling until" in words and "(1h01m more)" in words
    since = show_providers.clock_time(NOW - 45, NOW)
    assert words.count(f"lead/large (all keys): resting until {at} (20s more): rate_limit, since {since}") == 1


def test_what_is_set_aside_used_up_probed_or_shared_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = LedgerPart(aside=[aside(probe_at=NOW + 600)])
    braked = Schedule(free_at=NOW + 30, braked=60.0, braked_until=NOW + 4)
    state = live(cooled(Scope.MODEL, NOW - 1, 3, probing=True), other=AccountState(braked))
    words = said(documents(ledger, state), monkeypatch, capsys)
    assert "lead, key main: disabled 5m00s ago: no money left; one job retries it at" in words
    assert "probing with single calls until one succeeds: rate_limit, 3 in a row, since" in words
    assert "(account lead:other): limit reached; the next call may start at" in words and "(in 30s)" in words
    assert "reports less quota" not in words
    slower = live(other=AccountState(Schedule(braked=60.0, braked_until=NOW + 4)))
    words = said(documents(state=slower), monkeypatch, capsys)
    assert (
        "(account lead:other): the provider reports less quota than our usage explains, so others share the account; "
        "slowed down until" in words
    )
