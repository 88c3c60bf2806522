"""What a failure or a refusal leads to, case by case."""

from dataclasses import replace
from random import Random

import orjson
import pytest

from understudy.models.failure import Failure, FailureClass
from understudy.models.jobs.wait_reasons import HOLD_WORDS, put_back_at, put_back_for
from understudy.models.routing.chain import Chain, Step
from understudy.models.routing.suitability import WhyNot
from understudy.models.state import Priority
from understudy.worker.job.decide import ROUND_BACKOFF_S, decide
from understudy.worker.job.events import EveryKeyRefused, Fail, MoveOn, PutBack, ShareUsedUp, Situation, TryAgain
from understudy.worker.job.progress import Passed, Progress, begin_round, first_error, skipped
from understudy.worker.limits.credentials import Absence
from understudy.worker.limits.grants import Deployment, Hold, Refusal
from understudy.worker.providers.base import CannotExpress

NOW = 1_000_000.0


def chain(*names: str, **policy: object) -> Chain:
    steps = tuple(Step(provider=name.partition("/")[0], model=name.partition("/")[2]) for name in names)
    return Chain.model_validate({"steps": steps, **policy})


LEAD_AND_UNDERSTUDY = chain("alpha/m", "beta/m")


def situation(of: Chain = LEAD_AND_UNDERSTUDY, priority: Priority = Priority.BULK, now: float = NOW) -> Situation:
    return Situation(of, priority, now, Random(7))


def failure(cls: FailureClass, hint_s: float | None = None) -> Failure:
    return Failure(cls, f"a {cls}", status=500, hint_s=hint_s)


def refusal(hold: Hold, in_s: float) -> Refusal:
    return Refusal(NOW + in_s, hold, Deployment("alpha", "m", "main", "alpha:main"))


def held(hold: Hold, in_s: float) -> PutBack:
    """What a job waits for after such a refusal, if it stays at its step."""
    return PutBack(NOW + in_s, refusal(hold, in_s).waiting)


@pytest.mark.parametrize(
    ("cls", "retries"),
    [
        (FailureClass.CONNECT, 2),
        (FailureClass.SERVER, 2),
        (FailureClass.TIMEOUT, 1),
        (FailureClass.BAD_RESPONSE, 1),
        (FailureClass.UNKNOWN, 1),
        (FailureClass.REGION, 0),
    ],
)
def test_a_step_is_asked_again_as_often_as_its_failure_deserves_and_then_the_next(
    cls: FailureClass, retries: int
) -> None:
    at, progress = situation(), Progress()
    for _ in range(retries):
        verdict, progress = decide(at, progress, failure(cls))
        assert isinstance(verdict, TryAgain)
    verdict, progress = decide(at, progress, failure(cls))
    assert verdict == MoveOn()
    assert progress.step == 1


def test_three_retries_on_three_steps_do_not_become_twelve_calls() -> None:
    at, progress = situation(chain("a/m", "b/m", "c/m")), Progress()
    calls, verdict = 0, None
    while not isinstance(verdict, PutBack):
        verdict, progress = decide(at, progress, failure(FailureClass.SERVER))
        calls += 1
    assert calls == 3 + 3


def test_backoff_grows_and_stays_out_of_step_with_others() -> None:
    first, progress = decide(situation(), Progress(), failure(FailureClass.SERVER))
    second, _ = decide(situation(), progress, failure(FailureClass.SERVER))
    assert isinstance(first, TryAgain) and isinstance(second, TryAgain)
    assert 0.2 < first.after_s <= 0.5
    assert second.after_s <= 1.0


@pytest.mark.parametrize("cls", [FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER])
def test_a_request_that_is_wrong_for_every_step_fails_the_job_at_once(cls: FailureClass) -> None:
    verdict, progress = decide(situation(), Progress(), failure(cls))
    assert verdict == Fail()
    assert first_error(progress) is not None


THREE = chain("a/m", "b/m", "c/m", patience_s=0)


def lead_passed_over(of: Chain = THREE) -> Progress:
    """At the second step, because the primary cools for a minute."""
    verdict, progress = decide(situation(of), Progress(), refusal(Hold.COOLDOWN, 60))
    assert (verdict, progress.step) == (MoveOn(), 1)
    return progress


@pytest.mark.parametrize(
    "cls",
    [
        FailureClass.BAD_REQUEST,
        FailureClass.CONTENT_FILTER,
        FailureClass.CONTEXT_LENGTH,
        FailureClass.TOO_LARGE,
        FailureClass.REGION,
    ],
)
def test_a_later_step_that_rejects_a_request_never_ends_a_job_that_its_primary_may_serve(cls: FailureClass) -> None:
    two = chain("a/gpt-4o", "b/gpt-4o-mini", patience_s=0)
    verdict, progress = decide(situation(two), lead_passed_over(two), failure(cls))
    assert isinstance(verdict, PutBack)
    assert (verdict.until, verdict.waiting) == (NOW + 60, refusal(Hold.COOLDOWN, 0).waiting)
    assert (progress.step, progress.round, set(progress.ruled_out)) == (0, 2, {1})


def test_a_lead_whose_own_call_failed_for_a_passing_reason_is_waited_for_too() -> None:
    verdict, progress = None, Progress()
    while verdict != MoveOn():
        verdict, progress = decide(situation(THREE), progress, failure(FailureClass.SERVER))
    verdict, progress = decide(situation(THREE), progress, failure(FailureClass.BAD_REQUEST))
    assert isinstance(verdict, PutBack) and progress.step == 0


def test_no_round_goes_forward_from_a_step_that_the_chain_does_not_fall_back_from() -> None:
    _, progress = decide(situation(THREE), lead_passed_over(), failure(FailureClass.BAD_REQUEST))
    assert set(progress.ruled_out) == {1, 2}
    assert "does not fall back on bad_request" in skipped(progress)[2]
    verdict, progress = decide(situation(THREE), progress, refusal(Hold.COOLDOWN, 60))
    assert isinstance(verdict, PutBack) and progress.step == 0


def test_a_chain_that_falls_back_on_wrong_requests_asks_the_steps_after_it() -> None:
    brave = chain("a/m", "b/m", "c/m", patience_s=0, fallback_on=["rate_limit", "bad_request"])
    verdict, progress = decide(situation(brave), lead_passed_over(brave), failure(FailureClass.BAD_REQUEST))
    assert (verdict, progress.step) == (MoveOn(), 2)
    verdict, progress = decide(situation(brave), progress, failure(FailureClass.BAD_REQUEST))
    assert isinstance(verdict, PutBack) and progress.step == 0


def test_a_job_fails_for_good_when_the_lead_that_it_waited_for_has_its_verdict_too() -> None:
    _, progress = decide(situation(THREE), lead_passed_over(), failure(FailureClass.CONTEXT_LENGTH))
    verdict, progress = decide(situation(THREE), progress, failure(FailureClass.BAD_REQUEST))
    assert verdict == Fail()
    _, error = first_error(progress) or (0, {})
    assert error["class"] == FailureClass.BAD_REQUEST


def test_a_held_request_gets_the_verdict_at_once_although_its_lead_is_only_cooling() -> None:
    held = situation(THREE, Priority.INTERACTIVE)
    assert decide(held, lead_passed_over(), failure(FailureClass.BAD_REQUEST))[0] == Fail()


def test_what_rules_a_step_out_replaces_the_passing_error_that_it_had_before() -> None:
    _, progress = decide(situation(), Progress(), failure(FailureClass.RATE_LIMIT, hint_s=60))
    verdict, progress = decide(situation(), progress, Absence(FailureClass.MODEL_MISSING, "no credential has it"))
    assert verdict == MoveOn()
    assert (first_error(progress) or (0, {}))[1]["class"] is FailureClass.MODEL_MISSING


def test_a_bad_response_rules_out_nothing_until_the_step_was_asked_again() -> None:
    spent = replace(lead_passed_over(), retries_left=0)
    verdict, progress = decide(situation(THREE), spent, failure(FailureClass.BAD_RESPONSE))
    assert (verdict, progress.step, set(progress.ruled_out)) == (MoveOn(), 2, set())


def test_a_job_that_every_key_turns_away_asks_once_more_and_then_the_next_step() -> None:
    at, progress = situation(), Progress()
    verdict, progress = decide(replace(at, key="main"), progress, failure(FailureClass.CREDENTIAL))
    assert (verdict, progress.refused_by) == (TryAgain(0.0), ("main",))
    verdict, progress = decide(at, progress, EveryKeyRefused())
    assert isinstance(verdict, TryAgain) and verdict.after_s > 0 and progress.refused_by == ()
    _, progress = decide(replace(at, key="main"), progress, failure(FailureClass.CREDENTIAL))
    verdict, progress = decide(at, progress, EveryKeyRefused())
    assert (verdict, progress.step, progress.refused_by) == (MoveOn(), 1, ())
    assert skipped(progress) == {0: "credential: a credential"}


def test_a_job_that_every_key_of_its_only_step_turns_away_fails_with_what_they_said() -> None:
    alone, verdict, progress = situation(chain("a/m")), None, Progress()
    while verdict != Fail():
        _, progress = decide(replace(alone, key="main"), progress, failure(FailureClass.MODEL_MISSING))
        verdict, progress = decide(alone, progress, EveryKeyRefused())
    _, error = first_error(progress) or (0, {})
    assert (error["class"], error["status"]) == (FailureClass.MODEL_MISSING, 500)


def test_a_refusal_that_can_only_be_about_the_key_is_waited_out_where_nothing_is_proved_against_it() -> None:
    alone, wrong_key = situation(chain("a/m")), Failure(FailureClass.CREDENTIAL, "Incorrect API key.", 401, sure=True)
    _, progress = decide(replace(alone, key="main"), Progress(tries=1), wrong_key)
    verdict, progress = decide(alone, progress, EveryKeyRefused(wrong_key))
    assert isinstance(verdict, PutBack) and NOW < verdict.until < NOW + 60
    assert (progress.round, progress.ruled_out) == (2, {})
    while verdict != Fail():
        _, progress = decide(replace(alone, key="main"), replace(progress, tries=1), wrong_key)
        verdict, progress = decide(alone, progress, EveryKeyRefused(wrong_key))
    assert progress.round == 4


def test_a_chain_may_say_that_a_content_filter_moves_on() -> None:
    brave = chain("a/m", "b/m", fallback_on=["content_filter"])
    verdict, progress = decide(situation(brave), Progress(), failure(FailureClass.CONTENT_FILTER))
    assert (verdict, progress.step) == (MoveOn(), 1)


def test_a_class_that_the_chain_does_not_fall_back_on_waits_for_its_step_when_time_heals_it() -> None:
    strict = chain("a/m", "b/m", fallback_on=["rate_limit"])
    progress, verdict = Progress(), None
    for _ in range(3):
        verdict, progress = decide(situation(strict), progress, failure(FailureClass.SERVER))
    assert isinstance(verdict, PutBack)
    assert progress.step == 0


@pytest.mark.parametrize("cls", [FailureClass.RATE_LIMIT, FailureClass.OVERLOADED])
def test_a_rate_limit_costs_no_retry_and_asks_the_limiter_what_else_may_start(cls: FailureClass) -> None:
    verdict, progress = decide(situation(), Progress(), failure(cls, hint_s=30))
    assert verdict == TryAgain(0.0)
    assert (progress.retries_left, progress.tries, progress.step) == (3, 0, 0)


@pytest.mark.parametrize("cls", [FailureClass.QUOTA, FailureClass.CREDENTIAL, FailureClass.MODEL_MISSING])
def test_a_dead_credential_costs_nothing_and_another_one_is_asked(cls: FailureClass) -> None:
    verdict, progress = decide(situation(), Progress(), failure(cls))
    assert (verdict, progress.retries_left) == (TryAgain(0.0), 3)


def test_a_cooldown_within_patience_is_waited_out() -> None:
    patient = chain("a/m", "b/m", patience_s=10)
    verdict, progress = decide(situation(patient), Progress(), refusal(Hold.COOLDOWN, 8))
    assert verdict == held(Hold.COOLDOWN, 8)
    assert progress.refused_since == NOW


def test_a_cooldown_beyond_patience_moves_on() -> None:
    patient = chain("a/m", "b/m", patience_s=10)
    verdict, progress = decide(situation(patient), Progress(), refusal(Hold.COOLDOWN, 12))
    assert (verdict, progress.step) == (MoveOn(), 1)


def test_without_patience_the_next_step_is_tried_at_once() -> None:
    hasty = chain("a/m", "b/m", patience_s=0)
    verdict, progress = decide(situation(hasty), Progress(), refusal(Hold.BREAKER, 1.5))
    assert (verdict, progress.step) == (MoveOn(), 1)


def test_a_lead_that_always_says_wait_a_moment_is_passed_over_too() -> None:
    patient = chain("a/m", "b/m", patience_s=10)
    _, progress = decide(situation(patient), Progress(), refusal(Hold.COOLDOWN, 2))
    verdict, progress = decide(situation(patient, now=NOW + 10), progress, refusal(Hold.COOLDOWN, 12))
    assert (verdict, progress.step) == (MoveOn(), 1)


@pytest.mark.parametrize(("refusing_s", "moves"), [(9.0, False), (10.0, True)])
def test_a_primary_that_refused_every_job_for_longer_than_patience_is_passed_over_by_a_new_job(
    refusing_s: float, moves: bool
) -> None:
    refused = replace(refusal(Hold.BREAKER, 2), since=NOW - refusing_s)
    verdict, _ = decide(situation(chain("a/m", "b/m", patience_s=10)), Progress(), refused)
    assert isinstance(verdict, MoveOn) == moves


@pytest.mark.parametrize(("taught_s", "moves"), [(9.0, False), (10.0, True)])
@pytest.mark.parametrize("hold", [Hold.REQUESTS, Hold.STARTING])
def test_a_pace_that_refusals_taught_is_waited_for_as_long_as_patience_says(
    hold: Hold, taught_s: float, moves: bool
) -> None:
    taught = replace(refusal(hold, 0.5), since=NOW - taught_s)
    patient = chain("a/m", "b/m", patience_s=10)
    verdict, progress = decide(situation(patient), Progress(), taught)
    assert (verdict, progress.step) == ((MoveOn(), 1) if moves else (held(hold, 0.5), 0))
    verdict, _ = decide(situation(chain("a/m", patience_s=10)), Progress(), taught)
    assert isinstance(verdict, PutBack), "there is no other step to ask"
    stays = chain("a/m", "b/m", patience_s=10, fallback_on=["server"])
    verdict, _ = decide(situation(stays), Progress(), taught)
    assert isinstance(verdict, PutBack), "the chain does not fall back on rate limits"


@pytest.mark.parametrize("hold", [Hold.REQUESTS, Hold.TOKENS, Hold.IN_FLIGHT])
def test_our_own_pacing_waits_unless_the_chain_spills(hold: Hold) -> None:
    verdict, _ = decide(situation(), Progress(), refusal(hold, 500))
    assert isinstance(verdict, PutBack)
    verdict, progress = decide(situation(chain("a/m", "b/m", spill=True)), Progress(), refusal(hold, 5))
    assert (verdict, progress.step) == (MoveOn(), 1)


def test_a_day_that_is_used_up_moves_on_without_spill_and_keeps_a_one_step_chain_until_it_ends() -> None:
    verdict, progress = decide(situation(chain("a/m", "b/m")), Progress(), refusal(Hold.DAY, 5 * 3600))
    assert (verdict, progress.step) == (MoveOn(), 1)
    verdict, progress = decide(situation(chain("a/m")), Progress(), refusal(Hold.DAY, 5 * 3600))
    assert verdict == held(Hold.DAY, 5 * 3600)
    verdict, _ = decide(situation(chain("a/m"), Priority.INTERACTIVE), Progress(), refusal(Hold.DAY, 5 * 3600))
    assert verdict == Fail()


def test_a_day_that_ends_within_patience_is_waited_out() -> None:
    verdict, _ = decide(situation(chain("a/m", "b/m", patience_s=10)), Progress(), refusal(Hold.DAY, 8))
    assert verdict == held(Hold.DAY, 8)


def test_when_every_step_has_used_up_its_day_the_job_waits_for_the_first_that_comes_back() -> None:
    both = chain("a/m", "b/m")
    _, progress = decide(situation(both), Progress(), refusal(Hold.DAY, 5 * 3600))
    verdict, progress = decide(situation(both), progress, refusal(Hold.COOLDOWN, 600))
    assert verdict == held(Hold.COOLDOWN, 600)
    assert progress.step == 0


def test_pacing_at_the_last_step_waits_even_when_the_chain_spills() -> None:
    verdict, _ = decide(situation(chain("a/m", spill=True)), Progress(), refusal(Hold.REQUESTS, 5))
    assert verdict == held(Hold.REQUESTS, 5)


@pytest.mark.parametrize(
    ("lead_until", "waits_s", "step"),
    [(3.0, 5.0, 0), (7.0, 5.0, 1)],
    ids=["the lead may be back by then", "the lead rests for longer"],
)
def test_a_job_that_our_pacing_holds_at_a_later_step_goes_on_at_the_first_that_may_be_usable(
    lead_until: float, waits_s: float, step: int
) -> None:
    at = situation(chain("a/m", "b/m", patience_s=0))
    _, progress = decide(at, Progress(), refusal(Hold.BREAKER, lead_until))
    assert progress.step == 1
    verdict, progress = decide(at, progress, refusal(Hold.REQUESTS, waits_s))
    assert (verdict, progress.step, progress.round) == (held(Hold.REQUESTS, waits_s), step, 1)
    assert (0 in progress.passed) == (step == 1)


def test_a_job_whose_own_calls_failed_at_the_lead_does_not_return_to_it_in_this_round() -> None:
    at, progress = situation(chain("a/m", "b/m")), Progress()
    while progress.step == 0:
        _, progress = decide(at, progress, failure(FailureClass.SERVER))
    _, progress = decide(at, progress, refusal(Hold.REQUESTS, 3600))
    assert progress.step == 1


def test_a_one_step_chain_that_is_down_begins_a_new_round_and_never_fails() -> None:
    at, progress = situation(chain("a/m")), Progress()
    waits = []
    for _ in range(60):
        verdict, progress = decide(at, progress, failure(FailureClass.SERVER))
        assert not isinstance(verdict, Fail)
        if isinstance(verdict, PutBack):
            waits.append(verdict.until - NOW)
    assert progress.round == 1 + len(waits)
    assert progress.retries_left <= 3
    low, high = ROUND_BACKOFF_S
    assert low <= waits[0] <= 2 * low
    assert high / 2 <= waits[-1] <= high


def test_a_new_round_begins_when_the_first_of_the_refused_steps_is_usable() -> None:
    at, progress = situation(chain("a/m", "b/m", patience_s=0)), Progress()
    _, progress = decide(at, progress, refusal(Hold.COOLDOWN, 40))
    verdict, progress = decide(at, progress, refusal(Hold.COOLDOWN, 25))
    assert isinstance(verdict, PutBack)
    assert verdict.until == NOW + 25
    assert (progress.step, progress.round, progress.passed) == (0, 2, {})


def test_a_job_says_the_reason_of_the_step_that_it_will_ask_first() -> None:
    at = situation(chain("alpha/m", "beta/m", patience_s=1.0))
    _, progress = decide(at, Progress(), refusal(Hold.COOLDOWN, 500))
    at_beta = replace(refusal(Hold.COOLDOWN, 40), deployment=Deployment("beta", "m", "main", "beta:main"))
    verdict, _ = decide(at, progress, at_beta)
    assert verdict == PutBack(NOW + 40, put_back_at("cooling down after a refusal", "beta", "m", "beta:main"))


def test_a_caller_who_holds_a_connection_gets_one_round() -> None:
    at, progress = situation(chain("a/m"), Priority.INTERACTIVE), Progress()
    verdict, _ = decide(at, progress, refusal(Hold.COOLDOWN, 40))
    assert verdict == Fail()


def test_steps_that_only_a_person_can_fix_keep_the_job_queued_with_the_reason() -> None:
    at = situation(chain("a/m", "b/m"))
    verdict, progress = decide(at, Progress(), Absence(FailureClass.CREDENTIAL, "openai/main: invalid key"))
    assert verdict == MoveOn()
    verdict, progress = decide(at, progress, Absence(FailureClass.QUOTA, "other/main: no money"))
    assert isinstance(verdict, PutBack)
    assert "invalid key" in verdict.waiting.reason


def test_a_step_that_cannot_serve_the_request_is_skipped_and_the_last_one_fails_the_job() -> None:
    at = situation()
    verdict, progress = decide(at, Progress(), CannotExpress("n > 1"))
    assert verdict == MoveOn()
    verdict, progress = decide(at, progress, CannotExpress("n > 1"))
    assert verdict == Fail()
    _, error = first_error(progress) or (0, {})
    assert error["message"] == "alpha/m: n > 1"


def test_the_job_carries_the_first_steps_error() -> None:
    at, progress = situation(), Progress()
    _, progress = decide(at, progress, failure(FailureClass.REGION))
    verdict, progress = decide(at, progress, failure(FailureClass.BAD_REQUEST))
    _, error = first_error(progress) or (0, {})
    assert verdict == Fail()
    assert error["class"] is FailureClass.REGION


def test_a_prompt_that_is_too_long_is_not_sent_to_the_same_model_elsewhere() -> None:
    at = situation(chain("a/m", "b/m"))
    verdict, _ = decide(at, Progress(), failure(FailureClass.CONTEXT_LENGTH))
    assert verdict == Fail()


def test_a_prompt_that_is_too_long_goes_to_a_larger_window_only() -> None:
    at = situation(chain("openai/gpt-3.5-turbo", "openai/gpt-4", "gemini/gemini-2.5-flash"))
    verdict, progress = decide(at, Progress(), failure(FailureClass.CONTEXT_LENGTH))
    assert (verdict, progress.step) == (MoveOn(), 2)


def test_steps_that_were_ruled_out_stay_out_in_later_rounds() -> None:
    at, progress = situation(chain("a/m", "b/m", patience_s=0)), Progress()
    _, progress = decide(at, progress, failure(FailureClass.REGION))
    verdict, progress = decide(at, progress, refusal(Hold.COOLDOWN, 40))
    assert isinstance(verdict, PutBack)
    assert progress.step == 1


def test_progress_survives_its_stay_in_the_ledger() -> None:
    import orjson

    at, progress = situation(chain("a/m", "b/m", patience_s=0)), Progress()
    _, progress = decide(at, progress, failure(FailureClass.REGION))
    _, progress = decide(at, progress, refusal(Hold.COOLDOWN, 40))
    _, progress = decide(at, progress, failure(FailureClass.SERVER))
    assert Progress.from_dict(orjson.loads(orjson.dumps(progress.to_dict()))) == progress


RULE = WhyNot("'alpha/m' breaks the rule require region = eu", rule=True)
MISFIT = WhyNot("'alpha/m' cannot use tools", rule=False)
THREE = chain("alpha/m", "beta/m", "gamma/m")


def test_a_step_that_breaks_a_rule_is_passed_over_whatever_the_chain_falls_back_on() -> None:
    at = situation(chain("alpha/m", "beta/m", fallback_on=["rate_limit"]))
    verdict, progress = decide(at, Progress(), RULE)
    assert (verdict, progress.step) == (MoveOn(), 1)
    assert skipped(progress) == {0: RULE.text}
    assert first_error(progress) is None


def test_a_step_that_breaks_a_rule_is_looked_at_again_in_the_next_round_and_a_misfit_is_not() -> None:
    at = situation(THREE)
    _, progress = decide(at, Progress(), RULE)
    _, progress = decide(at, progress, MISFIT)
    verdict, progress = decide(at, progress, refusal(Hold.COOLDOWN, 60))
    assert isinstance(verdict, PutBack) and verdict.until > NOW + 50
    assert (progress.step, progress.round) == (0, 2)
    assert skipped(progress) == {1: MISFIT.text}


def test_a_job_waits_for_the_configuration_when_every_step_breaks_a_rule() -> None:
    at = situation()
    _, progress = decide(at, Progress(), RULE)
    verdict, progress = decide(at, progress, RULE)
    assert isinstance(verdict, PutBack) and verdict.waiting == put_back_for(RULE.text)
    assert (progress.step, progress.round) == (0, 1)


def test_a_job_does_not_wait_for_a_rule_if_another_step_was_allowed_and_does_not_fit() -> None:
    at = situation()
    _, progress = decide(at, Progress(), RULE)
    verdict, progress = decide(at, progress, MISFIT)
    assert verdict == Fail()
    assert skipped(progress) == {0: RULE.text, 1: MISFIT.text}


def test_an_interactive_job_does_not_wait_for_the_configuration() -> None:
    at = situation(chain("alpha/m"), Priority.INTERACTIVE)
    assert decide(at, Progress(), RULE)[0] == Fail()


def test_the_steps_of_a_round_are_asked_in_its_order_and_the_next_round_has_a_new_order() -> None:
    at, progress = situation(THREE), begin_round(Progress(), (2, 0, 1))
    asked = [progress.step]
    verdict: object = MoveOn()
    while verdict == MoveOn():
        verdict, progress = decide(at, progress, failure(FailureClass.CONNECT, hint_s=60))
        if verdict == MoveOn():
            asked.append(progress.step)
    assert asked == [2, 0, 1]
    assert isinstance(verdict, PutBack)
    assert (progress.order, progress.step) == ((), 0)


def test_a_round_begins_with_the_first_step_that_is_not_ruled_out() -> None:
    progress = begin_round(Progress(ruled_out={2: "too small"}), (2, 0, 1))
    assert progress.step == 0


def test_the_error_of_a_job_is_that_of_the_step_which_was_asked_first() -> None:
    at, progress = situation(THREE), begin_round(Progress(), (2, 0, 1))
    _, progress = decide(at, progress, CannotExpress("of gamma"))
    _, progress = decide(at, progress, CannotExpress("of alpha"))
    step, error = first_error(progress) or (0, {})
    assert (step, error["message"]) == (2, "gamma/m: of gamma")


def test_a_job_that_waited_for_our_pacing_goes_back_to_the_first_step_in_the_order_of_its_round() -> None:
    at = situation(chain("alpha/m", "beta/m", spill=True))
    _, progress = decide(at, begin_round(Progress(), (1, 0)), refusal(Hold.REQUESTS, 2))
    verdict, progress = decide(at, progress, refusal(Hold.REQUESTS, 5))
    assert isinstance(verdict, PutBack)
    assert progress.step == 1


def test_progress_that_was_written_before_there_were_orders_and_rules_is_read() -> None:
    cooled = Progress(step=1, passed={0: Passed(put_back_for("cooled"), 5.0)})
    old = cooled.to_dict()
    del old["order"], old["passed"]["0"]["rule"]
    assert Progress.from_dict(old) == cooled
    old["passed"]["0"] = {"reason": "cooled", "until": 5.0, "called": False}
    assert Progress.from_dict(old) == cooled
    at_beta = Passed(put_back_at("cooling", "beta", "m", "beta:main"), None, rule=True)
    kept = begin_round(Progress(passed={0: at_beta}), (1, 0))
    assert Progress.from_dict(orjson.loads(orjson.dumps(kept.to_dict()))) == kept


def test_without_a_place_a_job_waits_for_its_lead_until_the_lead_may_be_usable() -> None:
    _, progress = decide(situation(), Progress(), refusal(Hold.COOLDOWN, 90))
    assert progress.step == 1
    verdict, progress = decide(situation(), progress, ShareUsedUp(0))
    assert isinstance(verdict, PutBack) and verdict.until == NOW + 90
    assert "max_fallback_share is used up" in verdict.waiting.reason
    assert (progress.step, progress.passed) == (0, {})


def test_without_a_place_a_job_fails_with_what_its_lead_cannot_do() -> None:
    _, progress = decide(situation(), Progress(), CannotExpress("alpha cannot"))
    verdict, progress = decide(situation(), progress, ShareUsedUp(0))
    assert isinstance(verdict, Fail)
    _, error = first_error(progress) or (0, {})
    assert error["message"] == "alpha/m: alpha cannot"


def test_without_a_place_a_job_that_came_back_at_a_later_step_asks_its_lead() -> None:
    assert decide(situation(), Progress(step=1), ShareUsedUp(0)) == (MoveOn(), Progress())


def test_without_a_place_a_job_waits_for_the_first_step_that_may_serve_it() -> None:
    resting = Passed(put_back_for("overloaded at beta/m"), NOW + 5, called=True)
    progress = Progress(step=2, ruled_out={0: "alpha/m is for images"}, passed={1: resting})
    verdict, progress = decide(situation(chain("alpha/m", "beta/m", "gamma/m")), progress, ShareUsedUp(1))
    assert isinstance(verdict, PutBack) and verdict.until == NOW + 5
    assert progress.step == 1


def test_without_a_place_a_job_fails_though_a_rule_forbids_the_step_before_its_lead() -> None:
    broken = Passed(put_back_for("alpha/m breaks a rule"), None, rule=True)
    progress = Progress(step=2, passed={0: broken}, ruled_out={1: "bad_request: no"})
    verdict, _ = decide(situation(chain("alpha/m", "beta/m", "gamma/m")), progress, ShareUsedUp(1))
    assert isinstance(verdict, Fail)


def test_an_answer_that_would_be_the_same_again_is_not_asked_for_twice() -> None:
    bad = Failure(FailureClass.BAD_RESPONSE, "cut", status=200)
    assert isinstance(decide(situation(), Progress(), bad)[0], TryAgain)
    cut = Failure(FailureClass.BAD_RESPONSE, "cut", status=200, repeatable=False)
    assert isinstance(decide(situation(), Progress(), cut)[0], MoveOn)


@pytest.mark.parametrize(
    ("cls", "hold"),
    [
        (FailureClass.CONNECT, Hold.BREAKER),
        (FailureClass.TIMEOUT, Hold.BREAKER),
        (FailureClass.SERVER, Hold.BREAKER),
        (FailureClass.OVERLOADED, Hold.BREAKER),
        (FailureClass.RATE_LIMIT, Hold.COOLDOWN),
    ],
)
def test_a_provider_that_does_not_work_is_worded_alike_for_who_called_it_and_who_is_held_back(
    cls: FailureClass, hold: Hold
) -> None:
    alone, account = chain("alpha/m"), "alpha:main"
    held_back = put_back_at(HOLD_WORDS[hold], "alpha", "m", account)
    at = replace(situation(alone), account=account)
    verdict, progress = decide(at, Progress(refused_since=NOW - 1000), failure(cls))
    while isinstance(verdict, TryAgain):
        assert verdict.waiting == held_back
        verdict, progress = decide(at, progress, failure(cls))
    assert isinstance(verdict, PutBack) and verdict.waiting == held_back


def test_a_failure_that_holds_no_job_back_is_called_by_its_name() -> None:
    at = replace(situation(chain("alpha/m")), account="alpha:main")
    verdict, _ = decide(at, Progress(), failure(FailureClass.UNKNOWN))
    assert isinstance(verdict, TryAgain) and verdict.waiting == put_back_at("unknown", "alpha", "m", "alpha:main")
