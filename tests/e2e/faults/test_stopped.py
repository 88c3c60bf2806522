"""SIGSTOP beyond the lease, SIGTERM, Ctrl-C once and twice."""

import fcntl
import signal
import time
from collections.abc import Callable

import psutil
import pytest
from stage_hands import BIN, DEADLINE_S, Mock, Scene, alone_and_on_servers, digest, queue_and_servers, until

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

SLOW = "[answers]\nlatency_s = { kind = 'lognormal', median = 0.4, sigma = 0.4 }\n"
VERY_SLOW = "[answers]\nlatency_s = 60\n"


def freeze(scene: Scene, pid: int) -> list[str]:
    """SIGSTOP a worker with jobs in flight; return their ids.

    Not in the middle of a write: on SQLite that would stop all other writers.
    """
    deadline = time.monotonic() + DEADLINE_S
    while True:
        psutil.Process(pid).suspend()
        aboard = scene.ledger.aboard(pid)
        if aboard and ("DATABASE_URL" in scene.servers or _can_lock(scene)):
            return aboard
        psutil.Process(pid).resume()
        assert time.monotonic() < deadline, "it is never between two writes with jobs in flight"
        time.sleep(0.2)  # it renews its lease


def _can_lock(scene: Scene) -> bool:
    for name in ("ledger.db.turn", "ledger.db.lock"):
        with (scene.folder / ".understudy" / name).open("a") as file:
            for _ in range(10):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.01)
            else:
                return False
    return True


@pytest.mark.slow
def test_a_run_outlives_a_process_that_hangs_while_it_writes_to_the_ledger(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers("[answers]\nlatency_s = 0.1\n")
    scene.configure(mock, concurrency=10, lease_s=60.0)
    run = scene.run(scene.write_prompts(100))
    run.until(lambda: mock.answered() >= 20, "some prompts are answered")
    with (scene.folder / ".understudy" / "ledger.db.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run.until(lambda: "the ledger is unreachable" in run.said, "it says what it waits for")
    assert run.exit_code() == 0, run.said
    assert scene.ledger.states() == {"succeeded": 100}
    assert max(mock.times_answered().values()) == 1


@queue_and_servers
@pytest.mark.slow
def test_a_worker_frozen_beyond_its_lease_spoils_no_result_and_its_late_calls_are_kept(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers("[answers]\nlatency_s = { kind = 'lognormal', median = 1.0, sigma = 0.4 }\n")
    scene.configure(mock, concurrency=20)
    scene.submit(scene.write_prompts(300))
    frozen, other = scene.worker(), scene.worker()
    frozen.until(lambda: len(scene.ledger.rows("SELECT id FROM worker")) == 2, "both workers register")
    frozen.until(lambda: mock.answered() >= 60, "both work")
    [pid] = frozen.workers()
    [holder] = scene.ledger.rows("SELECT id FROM worker WHERE pid = :pid", pid=pid)
    aboard = freeze(scene, pid)
    other.until(lambda: not scene.ledger.count("worker WHERE id = :id", id=holder.id), "the frozen worker is rescued")
    other.until(
        lambda: scene.ledger.count("job WHERE claim_no > 1 AND state = 'succeeded'") >= len(aboard),
        "its jobs run again",
    )
    kept_before = scene.ledger.rows("SELECT job_id, created_at FROM result ORDER BY job_id")
    psutil.Process(pid).resume()
    other.until(lambda: scene.ledger.ended() == 300, "all jobs end")
    until(lambda: scene.ledger.count("attempt") >= 300 + len(aboard) // 2, "the late calls are recorded")
    until(lambda: scene.ledger.count("worker") == 2, "the thawed worker takes part again")

    assert scene.ledger.states() == {"succeeded": 300}
    assert scene.ledger.count("result") == 300
    kept = {row.job_id: row.created_at for row in scene.ledger.rows("SELECT job_id, created_at FROM result")}
    assert all(kept[row.job_id] == row.created_at for row in kept_before), "a terminal record changed"
    late = scene.ledger.count("attempt JOIN job ON job.id = attempt.job_id WHERE attempt.claim_no < job.claim_no")
    assert late > 0
    assert frozen.workers() == [pid], "it goes on in the same process"


@queue_and_servers
@pytest.mark.slow
def test_sigterm_gives_calls_that_outlast_the_grace_back_without_spending_anything(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(VERY_SLOW)
    scene.configure(mock, concurrency=25, grace_s=6.0, lease_s=15.0)
    scene.submit(scene.write_prompts(60))
    worker = scene.worker()
    worker.until(lambda: mock.in_flight() >= 25, "all slots are taken")
    worker.until(lambda: scene.ledger.states()["running"] == 25, "all slots are taken")
    began = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.exit_code(10.0) == 0
    assert 3.0 < time.monotonic() - began < 7.0, "it waits for the calls, and ends within the grace"

    assert scene.ledger.states() == {"queued": 60}
    assert scene.ledger.count("job WHERE worker_id IS NOT NULL OR crashes > 0 OR not_before > 0") == 0
    assert scene.ledger.count("worker") == 0
    given_back = scene.ledger.rows("SELECT progress FROM job WHERE claim_no > 0")
    assert len(given_back) == 25
    for row in given_back:
        assert row.progress is None or '"retries_left":3,"tries":0' in row.progress.replace(" ", "")
    stopped = scene.ledger.rows("SELECT failure, possibly_billed FROM attempt")
    assert {(row.failure, bool(row.possibly_billed)) for row in stopped} == {("cancelled", True)}


@pytest.mark.slow
@queue_and_servers
def test_sigterm_lets_calls_within_the_grace_finish(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers("[answers]\nlatency_s = 2\n")
    scene.configure(mock, concurrency=25, grace_s=10.0)
    scene.submit(scene.write_prompts(60))
    worker = scene.worker()
    worker.until(lambda: mock.in_flight() >= 25, "all slots are taken")
    worker.send(signal.SIGTERM)
    assert worker.exit_code(8.0) == 0
    states = scene.ledger.states()
    assert states["succeeded"] >= 25
    assert states["succeeded"] + states["queued"] == 60
    assert scene.ledger.count("attempt") == states["succeeded"]


@alone_and_on_servers
def test_ctrl_c_once_drains_and_the_same_command_goes_on(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=30)
    source = scene.write_prompts(300)
    run = scene.run(source)
    run.until(lambda: mock.answered() >= 60, "some prompts are answered")
    run.send(signal.SIGINT)
    assert run.exit_code(15.0) == 130, run.said
    assert "Run the same command again" in run.said
    assert "`understudy results latest` shows the results so far" in run.said
    states = scene.ledger.states()
    assert states.keys() == {"succeeded", "queued"}
    assert not scene.output.exists()

    again = scene.run(source)
    assert again.exit_code() == 0, again.said
    assert f"resuming: {states['succeeded']} answered, " in again.said
    assert len(scene.lines()) == 300
    assert mock.times_answered() == {digest(f"prompt {number}"): 1 for number in range(300)}


@pytest.mark.slow
def test_a_stopped_run_is_not_worked_off_by_the_next_one(scene: Scene, providers: Callable[[str], Mock]) -> None:
    """Stopped with Ctrl-C, and killed with all its processes."""
    mock = providers(SLOW)
    scene.configure(mock, concurrency=30)
    stopped = scene.write_prompts(200, name="early.jsonl", label="early ")
    killed = scene.write_prompts(200, name="killed.jsonl", label="killed ")
    other = scene.write_prompts(10, name="other.jsonl", label="other ")
    run = scene.run(stopped)
    run.until(lambda: mock.answered() >= 30, "some prompts are answered")
    run.send(signal.SIGINT)
    assert run.exit_code(15.0) == 130, run.said
    run = scene.start(BIN / "understudy", "run", killed, "-o", scene.folder / "killed.out.jsonl")
    run.until(lambda: mock.answered() >= 90, "some prompts of the next one are answered")
    run.kill_all()
    until(lambda: not mock.in_flight(), "what was in flight is over")
    before = mock.times_answered()

    next_one = scene.start(BIN / "understudy", "run", other, "-o", scene.folder / "other.out.jsonl")
    assert next_one.exit_code() == 0, next_one.said

    assert (mock.times_answered() - before).total() == 10, "an earlier run went on, and was paid for"
    status = scene.start(BIN / "understudy", "status")
    assert status.exit_code() == 0
    assert status.said.count("stopped") == 2

    assert scene.run(stopped).exit_code() == 0
    assert len(scene.lines()) == 200
    answered = mock.times_answered()
    assert {answered[digest(f"early prompt {number}")] for number in range(200)} == {1}


@pytest.mark.slow
@alone_and_on_servers
def test_ctrl_c_twice_stops_at_once_and_loses_nothing(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(VERY_SLOW)
    scene.configure(mock, concurrency=30, grace_s=30.0)
    run = scene.run(scene.write_prompts(50))
    run.until(lambda: mock.in_flight() >= 30, "calls are in flight")
    run.until(lambda: scene.ledger.states()["running"] == 30, "all slots are taken")
    run.send(signal.SIGINT)
    time.sleep(1.0)
    assert run.running, "the first Ctrl-C lets calls finish"
    began = time.monotonic()
    run.send(signal.SIGINT)
    assert run.exit_code(15.0) == 130, run.said
    assert time.monotonic() - began < 5.0
    assert scene.ledger.states() == {"queued": 50}
    assert scene.ledger.count("job WHERE crashes > 0") == 0


@pytest.mark.slow
def test_workers_and_the_queue_end_when_the_run_is_killed(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers(VERY_SLOW)
    scene.configure(mock, concurrency=10)
    run = scene.run(scene.write_prompts(20), "--workers", "2")
    run.until(lambda: mock.in_flight() >= 20, "both workers have calls in flight")
    children = psutil.Process(run.pid).children(recursive=True)
    run.send(signal.SIGKILL)
    assert not psutil.wait_procs(children, timeout=8.0)[1], "they outlive the run"
    assert scene.ledger.states() == {"queued": 20}, "workers that lose their parent give back what they hold"
