"""When a worker process counts as hung: only while the kernel lets it run and none of its threads gets a turn."""

import pytest

from understudy.producer.processes.supervision import IDLE_LOOKS, Look, Silence

LOOKS = 100


def looks_of(silence: Silence, looks: list[Look]) -> int:
    for look in looks:
        silence.add(look)
    return silence.looks


def begun() -> Silence:
    silence = Silence()
    silence.add(Look(sign=True, stopped=False, computed_s=1.0))
    return silence


def test_one_that_computes_and_gives_no_sign_hangs() -> None:
    assert looks_of(begun(), [Look(False, False, 1.0 + look) for look in range(1, LOOKS)]) == LOOKS - 1


def test_one_that_only_waits_for_its_lock_hangs_too() -> None:
    """10 ms in three seconds: the processor time of two waiting threads."""
    assert looks_of(begun(), [Look(False, False, 1.0 + look // 3 / 100) for look in range(1, LOOKS)]) == LOOKS - 1


@pytest.mark.parametrize(
    "looks",
    [
        [Look(True, False, 1.0) for _ in range(LOOKS)],
        [Look(False, True, 1.0) for _ in range(LOOKS)],
        [Look(False, False, 1.0) for _ in range(LOOKS)],
        [*[Look(False, False, 2.0)] * 3, *[Look(False, False, 2.0)] * LOOKS],
        [*(Look(False, False, 1.0 + look) for look in range(20)), Look(True, False, 22.0)],
    ],
    ids=["gives signs", "stopped", "frozen", "computed, then frozen", "gives a sign again"],
)
def test_one_that_is_kept_from_its_signs_by_others_does_not_hang(looks: list[Look]) -> None:
    assert looks_of(begun(), looks) < IDLE_LOOKS


def test_one_that_still_loads_does_not_hang() -> None:
    assert looks_of(Silence(), [Look(False, False, float(look)) for look in range(LOOKS)]) == 0
