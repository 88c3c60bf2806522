"""The rate and ETA of a batch, from its first seconds on."""

import pytest

from understudy.models.jobs.pace import jobs_per_s

MINUTE = 30_000_000
TURN = MINUTE * 60.0


@pytest.mark.parametrize("second", [2.0, 6.0, 30.0, 59.0])
def test_ten_a_second_are_ten_a_second_from_the_first_seconds_on(second: float) -> None:
    now = TURN + 59.5
    assert jobs_per_s({MINUTE: int(10 * second)}, now, now - second) == pytest.approx(10.0)


def test_what_began_just_before_a_minute_turned_is_counted_whole() -> None:
    ended = {MINUTE - 1: 60, MINUTE: 40}  # ten a second since six seconds before the full minute
    assert jobs_per_s(ended, TURN + 4.0, TURN - 6.0) == pytest.approx(10.0)


def test_of_a_minute_that_began_late_only_what_is_within_the_window_counts() -> None:
    ended = {MINUTE - 1: 200, MINUTE: 500}  # ten a second since twenty seconds before the full minute
    assert jobs_per_s(ended, TURN + 50.0, TURN - 20.0) == pytest.approx(10.0)


@pytest.mark.parametrize("part_s", [0.0, 1.0, 20.0, 59.9])
def test_an_even_pace_is_the_same_at_every_second_of_a_minute(part_s: float) -> None:
    ended = {MINUTE - 1: 600, MINUTE: round(10 * part_s)}
    assert jobs_per_s(ended, TURN + part_s, TURN - 500.0) == pytest.approx(10.0, rel=0.01)


def test_one_call_in_a_minute_is_a_low_rate() -> None:
    assert jobs_per_s({MINUTE: 1}, TURN + 30.0, TURN - 300.0) == pytest.approx(1 / 60)


def test_the_first_moment_is_not_divided_by_nothing() -> None:
    assert jobs_per_s({MINUTE: 3}, TURN + 30.0, TURN + 30.0) == 3.0


@pytest.mark.parametrize("since", [None, TURN + 3_600.0])
def test_when_the_start_is_not_known_a_whole_minute_is_taken(since: float | None) -> None:
    """The clock of a worker may be an hour ahead."""
    assert jobs_per_s({MINUTE: 60}, TURN + 59.0, since) == pytest.approx(1.0)


@pytest.mark.parametrize("again_s", [5.0, 20.0, 50.0])
@pytest.mark.parametrize("held_s", [10.0, 40.0, 400.0])
@pytest.mark.parametrize("part_s", [3.0, 31.0, 59.0])
def test_a_batch_that_was_held_has_the_rate_at_which_it_moves(again_s: float, held_s: float, part_s: float) -> None:
    """Ten a second whenever it was not paused."""
    now = TURN + part_s
    held = now - again_s - held_s, now - again_s
    seconds = [now - each - 0.5 for each in range(500)]
    moved = [each for each in seconds if not held[0] <= each < held[1]]
    ended = {minute: 10 * sum(each // 60 == minute for each in moved) for minute in (MINUTE - 1, MINUTE)}
    assert jobs_per_s(ended, now, now - 500.0, held) == pytest.approx(10.0, rel=0.15)
