"""When the next worker process is started after one has ended."""

import pytest

from understudy.producer.processes.supervision import (
    HOPELESS,
    LONGEST_PAUSE_S,
    TRIES,
    Losses,
    Restarts,
    WorkersFailed,
    how_it_ended,
)

KILLED, BROKEN, MISCONFIGURED, CUT_OFF = -9, 1, 2, 3


def test_who_died_with_jobs_aboard_or_after_a_while_is_replaced_at_once() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(KILLED, 0.5, held=3) for _ in range(50)] == [0.0] * 50
    assert [restarts.pause_s(BROKEN, 60.0, held=0) for _ in range(50)] == [0.0] * 50


def test_who_was_killed_before_it_did_anything_is_replaced_after_a_pause_that_grows() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(KILLED, 0.5, 0) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert [restarts.pause_s(KILLED, 0.5, 0) for _ in range(2_000)][-1] == LONGEST_PAUSE_S
    assert restarts.pause_s(KILLED, 60.0, 0) == 0.0
    assert restarts.pause_s(KILLED, 0.5, 0) == 0.5


def test_who_cannot_reach_a_store_is_started_until_it_does() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(CUT_OFF, 0.5, 0) for _ in range(100)][-1] == LONGEST_PAUSE_S


def test_who_is_told_to_end_over_and_over_is_replaced_each_time() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(0, 0.5, 0) for _ in range(100)][-1] == LONGEST_PAUSE_S


def test_workers_that_end_by_themselves_right_after_their_start_are_given_up() -> None:
    restarts = Restarts()
    for _ in range(TRIES - 1):
        restarts.pause_s(BROKEN, 0.5, 0)
    with pytest.raises(WorkersFailed, match="exit code 1; see their output above"):
        restarts.pause_s(BROKEN, 0.5, 0)


def test_a_worker_that_refuses_its_configuration_is_not_tried_again() -> None:
    with pytest.raises(WorkersFailed, match="exit code 2"):
        Restarts().pause_s(MISCONFIGURED, 0.5, 0)


def test_workers_that_all_die_before_a_single_job_has_ended_are_given_up_with_advice() -> None:
    losses = Losses(places=2)
    for _ in range(2 * HOPELESS - 1):
        losses.add(KILLED, 5, anything_ended=False)
    with pytest.raises(WorkersFailed, match=r"died with running jobs .* by SIGKILL; .*memory"):
        losses.add(KILLED, 1, anything_ended=False)


def test_where_jobs_end_any_number_of_deaths_is_the_fault_of_others() -> None:
    losses = Losses(places=1)
    for _ in range(3 * HOPELESS):
        losses.add(KILLED, 1, anything_ended=True)


def test_deaths_without_jobs_say_nothing_about_work() -> None:
    losses = Losses(places=1)
    for _ in range(3 * HOPELESS):
        losses.add(KILLED, 0, anything_ended=False)


def test_a_signal_is_named() -> None:
    assert [how_it_ended(code) for code in (-9, -64, 3)] == ["by SIGKILL", "by SIGRTMAX", "with exit code 3"]
