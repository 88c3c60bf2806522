"""A failover of PostgreSQL: every connection is cut, and for a while it is read-only. Paid answers are written once."""

import signal
from collections.abc import Callable

import pytest
from stage_hands import Mock, Scene, failed_over

pytestmark = [pytest.mark.timeout(400), pytest.mark.servers]  # tests on shared servers run one at a time

STEADY = "[answers]\nlatency_s = { kind = 'lognormal', median = 0.3, sigma = 0.3 }\n"
COUNT = 300


@pytest.mark.parametrize("scene", ["servers"], indirect=True)
def test_answers_that_came_during_a_failover_are_written_once_also_by_the_next_start(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(STEADY)
    scene.configure(mock, concurrency=40, grace_s=4.0, lease_s=6.0)
    scene.submit(scene.write_prompts(COUNT))
    first = scene.worker()
    first.until(lambda: mock.answered() >= 40, "some prompts are answered")
    with failed_over(scene):
        first.until(lambda: "they are held" in first.said and not mock.in_flight(), "all that is in flight is held")
    held = mock.answered()
    first.until(lambda: mock.answered() >= held + 40, "it goes on")

    with failed_over(scene):
        first.until(lambda: first.said.count("they are held") > 1 and not mock.in_flight(), "all is held once more")
        first.send(signal.SIGTERM)
        first.exit_code()
    assert "are kept in" in first.said
    assert 0 < scene.ledger.count("job WHERE state = 'running'") <= 40

    again = scene.worker()
    again.until(lambda: scene.ledger.states() == {"succeeded": COUNT}, "all is done")
    assert set(mock.times_answered().values()) == {1}, "nothing was paid for twice"
    assert scene.ledger.count("attempt") == COUNT
    assert scene.ledger.count("result") == COUNT
