"""Which jobs may share a worker after crashes, and how soon that finds the job that causes them."""

from random import Random

from understudy.models.jobs.suspects import ALONE_AT, DEAD_AT, admit, max_suspects

SLOTS = 100


def test_each_crash_leaves_less_company() -> None:
    assert [max_suspects(crashes, SLOTS) for crashes in range(5)] == [100, 50, 12, 3, 1]
    assert [max_suspects(crashes, 1) for crashes in range(5)] == [1] * 5


def test_jobs_without_a_crash_are_all_admitted_whatever_is_aboard() -> None:
    assert admit([0] * 300, [1] * 50, SLOTS) == [True] * 300


def test_more_suspects_than_fit_are_left_out_and_others_are_not() -> None:
    admitted = admit([2, 0] * 20, [], SLOTS)
    assert admitted[1::2] == [True] * 20
    assert admitted[0::2] == [True] * 12 + [False] * 8


def test_who_is_aboard_counts_for_all_that_suspect_them_less() -> None:
    assert admit([1, 1], [3, 2] + [1] * 47, SLOTS) == [True, False]
    assert admit([3], [2] * 12, SLOTS) == [False]


def test_one_of_those_that_run_alone_is_admitted() -> None:
    assert admit([ALONE_AT, 5, ALONE_AT], [], SLOTS) == [True, False, False]
    assert admit([5], [ALONE_AT], SLOTS) == [False]


class Crashing:
    """Workers finish jobs one after another; the first of the `deadly` jobs that is aboard kills its worker at once."""

    def __init__(self, jobs: int, deadly: set[int]) -> None:
        self.crashes = dict.fromkeys(range(jobs), 0)
        self.deadly = deadly
        self.failed: set[int] = set()
        self.deaths = 0
        self.rounds = 0

    def turn(self) -> None:
        """A worker takes what it may; either all of these jobs end well, or all are aboard at a crash."""
        aboard: list[int] = []
        for job in list(self.crashes)[:SLOTS]:
            if admit([self.crashes[job]], [self.crashes[each] for each in aboard], SLOTS)[0]:
                aboard.append(job)
        if alone := [job for job in aboard if self.crashes[job] >= ALONE_AT]:
            aboard = alone if self.rounds % 2 else [job for job in aboard if job not in alone] or alone
        self.rounds += 1
        if self.deadly.isdisjoint(aboard):
            for job in aboard:
                del self.crashes[job]
            return
        self.deaths += 1
        for job in aboard:
            self.crashes[job] += 1
            if self.crashes[job] >= DEAD_AT and len(aboard) == 1:
                self.failed.add(job)
                del self.crashes[job]

    def work_off(self) -> None:
        while self.crashes:
            self.turn()


def test_one_deadly_job_among_a_thousand_is_found_in_seven_crashes_and_fails_alone() -> None:
    for place in (0, 50, 99, 100, 512, 999):
        scene = Crashing(1_000, {place})
        scene.work_off()
        assert scene.failed == {place}
        assert scene.deaths == DEAD_AT


def test_five_deadly_jobs_among_a_thousand_fail_and_no_other() -> None:
    for seed in range(20):
        deadly = set(Random(seed).sample(range(1_000), 5))
        scene = Crashing(1_000, deadly)
        scene.work_off()
        assert scene.failed == deadly
        assert scene.deaths <= 5 * DEAD_AT


def test_after_everything_died_twice_all_that_was_in_flight_is_cleared_in_a_few_turns() -> None:
    scene = Crashing(100, set())
    scene.crashes = dict.fromkeys(range(50), 2) | dict.fromkeys(range(50, 100), 1)
    scene.work_off()
    assert scene.rounds <= 6
