"""The reason why a batch waits, and how often it is written to the ledger."""

from dataclasses import replace

from understudy.models.failure import FailureClass
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.worker.limits.grants import Hold
from understudy.worker.planner.batch_waits import (
    AGAIN_AFTER_S,
    GONE_AFTER_S,
    MOVED_AFTER_S,
    TELL_AT_MOST,
    TELL_EVERY_S,
    TOLD_AFTER_S,
    WORTH_TELLING_S,
    BatchWaits,
    Blocked,
    waits_for,
)
from understudy.worker.planner.outlook import StepOutlook

ALPHA, BETA = Step(provider="alpha", model="m"), Step(provider="beta", model="m")
FULL = Waiting("requests per minute are used up at alpha/m", "requests", "alpha", "m", "alpha:main", 100.0)


def test_a_full_step_is_named_with_its_account_and_time() -> None:
    outlook = {"alpha/m": StepOutlook(starts=0, hold=Hold.REQUESTS, until=100.0, account="alpha:main")}
    assert waits_for(Chain(steps=(ALPHA, BETA)), Priority.BULK, outlook) == FULL


def test_of_two_steps_the_one_that_can_start_first_is_named() -> None:
    outlook = {
        "alpha/m": StepOutlook(starts=0, hold=Hold.REQUESTS, until=100.0),
        "beta/m": StepOutlook(starts=0, hold=Hold.TOKENS, until=90.0),
    }
    assert waits_for(Chain(steps=(ALPHA, BETA), spill=True), Priority.BULK, outlook).hold == "tokens"


def test_a_cooldown_within_patience_is_waited_for() -> None:
    outlook = {"alpha/m": StepOutlook(starts=0, cooled_for_s=5.0, hold=Hold.BREAKER, until=105.0)}
    said = waits_for(Chain(steps=(ALPHA, BETA), patience_s=10), Priority.BULK, outlook)
    assert (said.hold, said.model, said.until) == ("breaker", "m", 105.0)


def test_a_credential_that_a_person_must_fix_has_no_time() -> None:
    said = waits_for(Chain(steps=(ALPHA,)), Priority.BULK, {"alpha/m": StepOutlook(starts=0, blocked=True)})
    assert (said.hold, said.provider, said.until) == ("credential", "alpha", None)


def test_a_step_with_room_means_that_others_go_first() -> None:
    assert waits_for(Chain(steps=(ALPHA,)), Priority.BULK, {}).hold == "turn"


def test_a_moment_between_two_tickets_is_not_told() -> None:
    waits = BatchWaits()
    assert waits.news({"b": FULL}, 0.0) == {}
    assert waits.news({}, WORTH_TELLING_S) == {}
    assert waits.news({"b": FULL}, WORTH_TELLING_S + 0.1) == {}
    assert waits.news({"b": FULL}, 2 * WORTH_TELLING_S + 0.1) == {"b": FULL}


def test_what_lasts_is_told_again_and_what_changed_at_once() -> None:
    waits = BatchWaits()
    waits.news({"b": FULL}, 0.0)
    assert waits.news({"b": FULL}, 1.0) == {"b": FULL}
    later = replace(FULL, until=101.0)
    assert waits.news({"b": later}, 1.0 + TELL_EVERY_S) == {}, "a later time alone is no news"
    assert waits.news({"b": later}, 1.0 + AGAIN_AFTER_S) == {"b": later}
    tokens = replace(FULL, hold="tokens")
    assert waits.news({"b": tokens}, 1.0 + AGAIN_AFTER_S + TELL_EVERY_S) == {"b": tokens}


def test_a_batch_that_moves_again_is_cleared_once() -> None:
    waits = BatchWaits()
    waits.news({"b": FULL}, 0.0)
    waits.news({"b": FULL}, 1.0)
    assert waits.news({}, 3.0) == {"b": None}
    assert waits.news({}, 6.0) == {}


def test_however_many_wait_the_ledger_is_told_once_a_second() -> None:
    waits, everybody = BatchWaits(), {f"b{number}": FULL for number in range(2 * TELL_AT_MOST + 1)}
    told = [news for tick in range(100) if (news := waits.news(everybody, tick / 10))]
    assert 3 <= len(told) <= 10
    assert max(map(len, told)) <= TELL_AT_MOST
    assert set().union(*told[:3]) == everybody.keys()


def test_a_refused_key_is_told_apart_from_one_without_money() -> None:
    def said(cls: FailureClass) -> str:
        at = StepOutlook(starts=0, blocked=True, blocked_by=cls)
        return waits_for(Chain(steps=(ALPHA,)), Priority.BULK, {"alpha/m": at}).reason

    assert "no key of alpha is accepted" in said(FailureClass.CREDENTIAL)
    assert "no key of alpha has credit left" in said(FailureClass.QUOTA)


KEY = Waiting("no key of alpha is accepted", "credential", "alpha", "m")


def test_what_a_person_must_fix_is_told_once_it_has_lasted() -> None:
    blocked = Blocked()
    blocked.see({"a": KEY, "b": FULL}, 100.0)
    assert blocked.news({}, 100.0 + TOLD_AFTER_S - 0.1) == ({}, [])
    assert blocked.news({}, 100.0 + TOLD_AFTER_S) == ({"a": KEY.reason}, [])
    assert blocked.news({"a": KEY.reason}, 100.0 + TOLD_AFTER_S + 2) == ({}, [])


def test_a_wait_that_ended_meanwhile_is_counted_from_its_new_beginning() -> None:
    blocked = Blocked()
    blocked.see({"a": KEY}, 100.0)
    blocked.see({}, 105.0)
    blocked.see({"a": KEY}, 106.0)
    assert blocked.news({}, 100.0 + TOLD_AFTER_S) == ({}, [])
    assert blocked.news({}, 106.0 + TOLD_AFTER_S) == ({"a": KEY.reason}, [])


def test_one_probe_of_a_credential_does_not_make_its_batch_go_on() -> None:
    blocked, told = Blocked(), {"a": KEY.reason}
    for at in (100.0, 103.0):
        blocked.see({"a": KEY}, at)
    blocked.see({}, 104.0)
    assert blocked.news(told, 104.0) == ({}, [])
    blocked.see({"a": KEY}, 106.0)
    blocked.see({}, 107.0)
    assert blocked.news(told, 106.0 + GONE_AFTER_S - 0.1) == ({}, [])
    assert blocked.news(told, 106.0 + GONE_AFTER_S) == ({}, ["a"])


SPENT = Waiting("tenant acme has spent its money", "budget")


def test_a_batch_whose_tenant_has_money_again_goes_on_when_its_jobs_are_staged() -> None:
    blocked, told = Blocked(), {"a": SPENT.reason}
    blocked.see({"a": SPENT}, 100.0, moving=["b"])
    blocked.see({}, 101.0)
    assert blocked.news(told, 101.0 + MOVED_AFTER_S) == ({}, []), "nothing shows yet that it may go on"
    blocked.see({}, 104.0, moving=["a"])
    blocked.see({}, 105.0)
    assert blocked.news(told, 105.0) == ({}, ["a"])


def test_one_staged_job_does_not_resume_a_batch_that_waits_for_money_again() -> None:
    blocked, told = Blocked(), {"a": SPENT.reason}
    for at in range(100, 130, 2):
        blocked.see({"a": SPENT}, at)
        blocked.see({}, at + 1, moving=["a"])
        assert blocked.news(told, at + 1) == ({}, [])


def test_a_batch_that_waits_for_a_key_is_not_taken_to_go_on_by_its_probes() -> None:
    blocked = Blocked()
    blocked.see({"a": SPENT}, 99.0)
    blocked.see({"a": KEY}, 100.0)
    blocked.see({}, 101.0, moving=["a"])
    assert blocked.news({"a": KEY.reason}, 100.0 + GONE_AFTER_S - 0.1) == ({}, [])


def test_another_leader_gives_what_was_told_before_it_the_same_time() -> None:
    blocked = Blocked()
    blocked.see({}, 500.0)
    assert blocked.news({"a": KEY.reason}, 500.0) == ({}, [])
    assert blocked.news({"a": KEY.reason}, 500.0 + GONE_AFTER_S) == ({}, ["a"])


def test_another_reason_is_written_down_at_once() -> None:
    blocked, spent = Blocked(), Waiting("tenant acme has spent its money", "budget")
    blocked.see({"a": spent}, 100.0)
    assert blocked.news({"a": KEY.reason}, 100.0) == ({"a": spent.reason}, [])
