"""Priorities and turns between real processes: what is urgent starts at once, what is small is soon done."""

import time
from collections.abc import Callable

import httpx
import pytest
from stage_hands import Mock, Scene, queue_and_servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]  # tests on the named servers wait for their turn

SLOW_AND_QUICK = """
[[rules]]
provider = "alpha"
first = 10  # the batch's canary
latency_s = 0.05

[[rules]]
provider = "alpha"
latency_s = 30
"""
NO_SLOW_START = "\n[[providers.alpha.limits]]\nrequests_per_minute = 100000\n"
FIVE_A_SECOND = "\n[[providers.alpha.limits]]\nrequests_per_minute = 300\n"


def state_of(scene: Scene, batch_id: str) -> str:
    (batch,) = scene.ledger.rows("SELECT state FROM batch WHERE id = :id", id=batch_id)
    return str(batch.state)


@queue_and_servers
def test_a_single_job_starts_within_a_second_while_a_batch_holds_all_its_slots(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(SLOW_AND_QUICK)
    scene.configure(mock, concurrency=40, urgent_slots=None, more=NO_SLOW_START)
    _, url = scene.serve()
    scene.submit(scene.write_prompts(2_000))
    until(lambda: mock.in_flight() == 38, "the batch has all the slots that bulk may have")
    for number in range(3):
        body = {"model": "beta/m", "messages": [{"role": "user", "content": f"How many legs has spider {number}?"}]}
        answered = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        accepted = httpx.post(f"{url}/v1/jobs", json=body, timeout=30)
        assert (answered.status_code, accepted.status_code) == (200, 202)
    singles = "SELECT started_at - created_at AS waited_s FROM job WHERE batch_id = '' AND state = 'succeeded'"
    waited = until(lambda: len(rows := scene.ledger.rows(singles)) == 6 and rows, "the single jobs are done")
    assert max(float(row.waited_s) for row in waited) < 1.0
    assert mock.in_flight() == 38, "the batch still has its slots"


@queue_and_servers
def test_a_small_batch_is_done_in_about_its_own_time_while_a_big_one_runs(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    scene.configure(providers("[answers]\nlatency_s = 0.1\n"), more=FIVE_A_SECOND)
    scene.worker()

    def seconds_for(label: str) -> float:
        batch = scene.submit(scene.write_prompts(20, name=f"{label}.jsonl", label=label))
        began = time.monotonic()
        until(lambda: state_of(scene, batch) == "completed", f"{label} is done")
        return time.monotonic() - began

    seconds_for("warm")
    alone_s = seconds_for("alone")
    big = scene.submit(scene.write_prompts(2_000, name="big.jsonl", label="big"))
    until(lambda: scene.ledger.states()["succeeded"] >= 50, "the big batch is under way")
    beside_s = seconds_for("beside")
    assert state_of(scene, big) == "in_progress"
    assert beside_s < 3 * max(alone_s, 20 / 5), "its own time: at the limit's pace, without the burst of an idle one"
