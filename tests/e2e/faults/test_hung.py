"""Workers that are alive but hang are replaced, and no others."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from stage_hands import Mock, Scene, alone_and_on_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LEASE_S = 1.5
STANDIN = Path(__file__).parents[2] / "standins" / "takes_the_lock"
DEADLINE_S = 300.0


def prompts_with_one_that_takes_the_lock(scene: Scene, way: str, innocent: int, place: int) -> Path:
    source = scene.write_prompts(innocent)
    lines = source.read_text().splitlines()
    lines.insert(place, json.dumps({"custom_id": "poison", "prompt": f"TAKE THE LOCK {way}", "model": "alpha/m"}))
    source.write_text("\n".join(lines))
    return source


@alone_and_on_servers
@pytest.mark.parametrize("way", ["COMPUTING", "ASLEEP"])
def test_a_job_that_takes_the_interpreters_lock_is_dead_lettered_alone(
    scene: Scene, providers: Callable[[str], Mock], way: str
) -> None:
    scene.configure(providers("[answers]\nlatency_s = 0.1\n"), concurrency=20, lease_s=LEASE_S)
    scene.environment["PYTHONPATH"] = str(STANDIN)
    run = scene.run(prompts_with_one_that_takes_the_lock(scene, way, 60, 10), "--workers", "2")
    assert run.exit_code(DEADLINE_S) == 1, run.said
    assert scene.ledger.states() == {"succeeded": 60, "failed": 1}
    assert [line["error"]["code"] for line in scene.lines() if line["custom_id"] == "poison"] == ["crashed"]
    assert "none of its threads has run" in run.said and "takes_the_lock" in run.said, "it says where"


def test_workers_that_were_stopped_and_go_on_are_left_alone(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers("[answers]\nlatency_s = 0.5\n")
    scene.configure(mock, concurrency=4, lease_s=LEASE_S)
    run = scene.run(scene.write_prompts(60), "--workers", "2")
    run.until(mock.answered, "some are answered")
    workers = run.workers()
    for_all_of(workers, signal.SIGSTOP)
    time.sleep(6 * LEASE_S)  # the test is that nothing happens meanwhile
    for_all_of(workers, signal.SIGCONT)
    assert run.exit_code(DEADLINE_S) == 0, run.said
    assert scene.ledger.states() == {"succeeded": 60}
    assert "none of its threads has run" not in run.said and "starting another" not in run.said, run.said


def for_all_of(workers: list[int], number: signal.Signals) -> None:
    assert len(workers) == 2
    for worker in workers:
        psutil.Process(worker).send_signal(number)
