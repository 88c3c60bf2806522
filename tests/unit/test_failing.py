"""When hard failures of a deployment are more than bad luck."""

from worker.failing import BREAK_AFTER, Failing


def begun(calls: int) -> Failing:
    failing = Failing()
    for _ in range(calls):
        failing.begin()
    return failing


def test_failures_in_a_row_speak_against_it_however_many_earlier_calls_are_still_under_way() -> None:
    failing = begun(1000)
    verdicts = [failing.saw_failure(failing.begin()) for _ in range(BREAK_AFTER)]
    assert verdicts == [False] * (BREAK_AFTER - 1) + [True]


def test_answers_to_calls_that_began_before_the_first_failure_excuse_nothing() -> None:
    failing = begun(100)
    for number in range(1, BREAK_AFTER):
        failing.saw_failure(100 + number)
        failing.saw_answer(number)
    assert failing.saw_failure(100 + BREAK_AFTER)


def test_an_answer_to_a_later_call_excuses_the_failures_before_it() -> None:
    failing = begun(20)
    for number in range(1, BREAK_AFTER):
        failing.saw_failure(number)
    failing.saw_answer(10)
    assert not any(failing.saw_failure(number) for number in range(11, 10 + BREAK_AFTER))
    assert failing.saw_failure(10 + BREAK_AFTER)


def test_calls_that_stalled_and_end_when_it_is_well_again_prove_nothing() -> None:
    failing = begun(100)
    failing.saw_answer(50)
    assert not any(failing.saw_failure(number) for number in range(1, 50))


def test_a_tenth_that_fails_at_once_while_answers_take_long_proves_nothing() -> None:
    failing = begun(1000)
    assert not any(failing.saw_failure(number) for number in range(10, 1000, 10))


def test_stalled_calls_speak_against_it_as_soon_as_the_first_few_end() -> None:
    failing = begun(1000)
    assert [failing.saw_failure(number) for number in range(1, BREAK_AFTER + 1)][-1]
