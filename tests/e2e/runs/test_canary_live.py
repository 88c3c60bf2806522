"""A batch that cannot succeed stops after its first jobs, and continues when it is told to."""

from collections.abc import Callable

import pytest
from stage_hands import Mock, Scene, alone_and_on_servers

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

ALL_BAD = "[[rules]]\nfail = 'bad_request'\n"
BAD_AT_FIRST = "[[rules]]\nfail = 'bad_request'\nfirst = 10\n"
CANARY, LINES = 10, 60
WHY = "the first 10 jobs all failed: bad_request at alpha/m"


def calls(mock: Mock) -> int:
    return sum(mock.stats()["providers"]["alpha"]["statuses"].values())


def said(scene: Scene, *words: str) -> str:
    done = scene.type(*words)
    assert done.returncode == 0, done.said
    return done.said


@alone_and_on_servers
@pytest.mark.slow
def test_a_run_whose_first_jobs_all_fail_stops_and_goes_on_when_it_is_run_again(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(BAD_AT_FIRST)
    scene.configure(mock)
    source = scene.write_prompts(LINES)
    stopped = scene.run(source)
    assert stopped.exit_code() == 3, stopped.said
    assert f"Stopped: {WHY}." in stopped.said and "understudy attempts latest" in stopped.said
    assert calls(mock) == CANARY and not scene.output.exists()
    again = scene.run(source)
    assert again.exit_code() == 0, again.said
    assert all(line["response"]["status_code"] == 200 for line in scene.lines()) and len(scene.lines()) == LINES
    assert calls(mock) == LINES + CANARY


def test_a_paused_batch_says_what_to_do_and_goes_on_when_it_is_resumed(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(ALL_BAD)
    scene.configure(mock)
    worker = scene.worker()
    batch_id = scene.submit(scene.write_prompts(LINES))
    worker.until(lambda: scene.ledger.count("batch WHERE paused IS NOT NULL"), "the batch pauses")
    assert CANARY <= calls(mock) < 2 * CANARY
    status = said(scene, "status", batch_id)
    assert f"paused ({WHY})" in status and f"understudy resume {batch_id}" in status
    said(scene, "resume", batch_id)
    worker.until(lambda: scene.ledger.count("batch WHERE state = 'completed'"), "all the rest is tried")
    assert scene.ledger.states() == {"failed": LINES} and calls(mock) == LINES
    retry = said(scene, "retry", batch_id).splitlines()[-1]
    assert scene.ledger.count("job WHERE batch_id = :id", id=retry) == LINES
