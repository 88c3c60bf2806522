"""SIGKILL, to one worker and to everything: nothing is lost, nothing is done twice."""

import time
from collections.abc import Callable

import pytest
from stage_hands import Mock, Scene, alone_and_on_servers, digest, kill_with_jobs_aboard

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

SLOW = "[answers]\nlatency_s = { kind = 'lognormal', median = 0.5, sigma = 0.4 }\n"
RUN_AGAIN_WITHIN_S = 60.0


def assert_each_line_once(scene: Scene, count: int) -> None:
    lines = scene.lines()
    assert len(lines) == count
    assert {line["custom_id"] for line in lines} == {f"line-{number}" for number in range(count)}
    assert all(line["response"]["status_code"] == 200 for line in lines)
    assert scene.ledger.count("result") == count
    assert scene.ledger.states() == {"succeeded": count}


@alone_and_on_servers
@pytest.mark.slow
def test_jobs_of_a_killed_worker_run_again_and_each_ends_once(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=40)
    run = scene.run(scene.write_prompts(600), "--workers", "2")
    aboard: set[str] = set()
    for wanted in (40, 200):
        run.until(lambda wanted=wanted: mock.answered() >= wanted, "some prompts are answered")
        aboard.update(kill_with_jobs_aboard(run, scene.ledger))
    died_at = time.time()
    assert run.exit_code() == 0, run.said
    assert_each_line_once(scene, 600)
    again = {row.id for row in scene.ledger.rows("SELECT id FROM job WHERE claim_no > 1")}
    assert aboard & again, "what the killed workers held runs again"
    assert scene.ledger.rows("SELECT max(started_at) latest FROM job")[0].latest < died_at + RUN_AGAIN_WITHIN_S


@pytest.mark.slow
@alone_and_on_servers
def test_when_everything_is_killed_the_next_run_goes_on_and_pays_for_no_settled_prompt_again(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=40)
    source = scene.write_prompts(400)
    run = scene.run(source)
    run.until(lambda: mock.answered() >= 100, "some prompts are answered")
    run.kill_all()
    settled = scene.ledger.rows("SELECT custom_id FROM job WHERE state = 'succeeded'")
    assert 0 < len(settled) < 400
    assert not scene.output.exists()

    again = scene.run(source)
    assert again.exit_code() == 0, again.said
    assert_each_line_once(scene, 400)
    answered = mock.times_answered()
    for row in settled:
        assert answered[digest(row.custom_id.replace("line-", "prompt "))] == 1
    twice = sum(count - 1 for count in answered.values())
    assert twice <= 40 + 5, "only what was in flight when everything died may be paid for twice"


@pytest.mark.slow
def test_killed_again_and_again_everything_still_ends_once(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=40)
    source = scene.write_prompts(500)
    for wanted in (60, 180, 300):
        run = scene.run(source)
        run.until(lambda wanted=wanted: mock.answered() >= wanted, "some prompts are answered")
        run.kill_all()
    last = scene.run(source)
    assert last.exit_code() == 0, last.said
    assert_each_line_once(scene, 500)
