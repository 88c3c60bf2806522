"""When hard failures of a deployment are more than chance."""

from understudy.worker.limits.breaker import BREAK_AFTER, WITNESS_S, HardFailures


def begun(calls: int) -> HardFailures:
    failing = HardFailures()
    for _ in range(calls):
        failing.begin()
    return failing


def test_failures_in_a_row_speak_against_it_however_many_earlier_calls_are_still_under_way() -> None:
    failing = begun(1000)
    verdicts = [failing.saw_failure(failing.begin(), "acme", 0.0) for _ in range(BREAK_AFTER)]
    assert verdicts == [False] * (BREAK_AFTER - 1) + [True]


def test_answers_to_calls_that_began_before_the_first_failure_excuse_nothing() -> None:
    failing = begun(100)
    for number in range(1, BREAK_AFTER):
        failing.saw_failure(100 + number, "acme", 0.0)
        failing.saw_answer(number, "acme", 0.0)
    assert failing.saw_failure(100 + BREAK_AFTER, "acme", 0.0)


def test_an_answer_to_a_later_call_excuses_the_failures_before_it() -> None:
    failing = begun(20)
    for number in range(1, BREAK_AFTER):
        failing.saw_failure(number, "acme", 0.0)
    failing.saw_answer(10, "acme", 0.0)
    assert not any(failing.saw_failure(number, "acme", 0.0) for number in range(11, 10 + BREAK_AFTER))
    assert failing.saw_failure(10 + BREAK_AFTER, "acme", 0.0)


def test_calls_that_stalled_and_end_when_it_is_well_again_prove_nothing() -> None:
    failing = begun(100)
    failing.saw_answer(50, "acme", 0.0)
    assert not any(failing.saw_failure(number, "acme", 0.0) for number in range(1, 50))


def test_a_tenth_that_fails_at_once_while_answers_take_long_proves_nothing() -> None:
    failing = begun(1000)
    assert not any(failing.saw_failure(number, "acme", 0.0) for number in range(10, 1000, 10))


def test_stalled_calls_speak_against_it_as_soon_as_the_first_few_end() -> None:
    failing = begun(1000)
    assert [failing.saw_failure(number, "acme", 0.0) for number in range(1, BREAK_AFTER + 1)][-1]


def failed(failing: HardFailures, tenant: str, times: int, now: float = 0.0) -> list[bool]:
    return [failing.saw_failure(failing.begin(), tenant, now) for _ in range(times)]


def contested(failures: int = BREAK_AFTER, answers: int = 1) -> HardFailures:
    """One where a rival's calls failed and then another tenant's were answered."""
    failing = HardFailures()
    failed(failing, "rival", failures)
    for _ in range(answers):
        failing.saw_answer(failing.begin(), "acme", now=0.0)
    return failing


def test_a_tenant_whose_calls_alone_fail_speaks_against_its_requests() -> None:
    assert not any(failed(contested(), "rival", 1000))


def test_another_tenant_speaks_against_the_deployment_even_among_a_thousand_of_the_first() -> None:
    failing = contested(answers=2 * BREAK_AFTER)
    told = [failed(failing, "rival", 100)[-1] or failed(failing, "acme", 1)[-1] for _ in range(BREAK_AFTER)]
    assert told == [False] * (BREAK_AFTER - 1) + [True]


def test_a_tenant_is_believed_again_once_it_was_answered() -> None:
    failing = contested()
    failing.saw_answer(failing.begin(), "rival", now=0.0)
    assert failed(failing, "rival", BREAK_AFTER)[-1]


def test_a_tenant_is_believed_when_no_other_was_answered_recently() -> None:
    assert failed(contested(), "rival", BREAK_AFTER, now=WITNESS_S)[-1]


def test_a_tenant_is_believed_when_most_others_fail_as_well() -> None:
    failing = contested()
    failed(failing, "acme", 1)
    assert failed(failing, "rival", BREAK_AFTER - 1)[-1]


def test_answers_to_calls_of_others_that_began_earlier_do_not_contradict_it() -> None:
    failing = begun(100)
    failed(failing, "rival", BREAK_AFTER)
    failing.saw_answer(100, "acme", now=0.0)
    assert failed(failing, "rival", 1) == [True]


def test_one_tenant_alone_is_believed() -> None:
    failing = contested(failures=0)
    assert failed(failing, "rival", BREAK_AFTER)[-1]
