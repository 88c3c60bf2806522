"""Redis is wiped while jobs wait, run and are put back: the ledger decides, Redis only hints."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from stage_hands import Mock, Process, Scene, queue_and_servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time

SLOW = "[answers]\nlatency_s = { kind = 'lognormal', median = 0.4, sigma = 0.4 }\n"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """In a folder with a short name, because the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp") as folder:
        yield Path(folder)


def wipe_at(run: Process, mock: Mock, redis: Redis, wanted: int) -> None:
    run.until(lambda: mock.answered() >= wanted, f"{wanted} prompts are answered")
    redis.flushdb()


def test_a_run_survives_its_queue_being_wiped_twice(
    scene: Scene, providers: Callable[[str], Mock], short_folder: Path
) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=40)
    scene.environment["TMPDIR"] = str(short_folder)
    run = scene.run(scene.write_prompts(500))
    run.until(lambda: list(short_folder.glob("us-*/redis.sock")), "the embedded server listens")
    [socket] = short_folder.glob("us-*/redis.sock")
    with Redis.from_url(f"unix://{socket}") as redis:
        wipe_at(run, mock, redis, 50)
        wipe_at(run, mock, redis, 250)
    assert run.exit_code() == 0, run.said
    assert len(scene.lines()) == 500
    assert scene.ledger.states() == {"succeeded": 500}
    assert set(mock.times_answered().values()) == {1}, "a ticket that is written again does not run a job again"


@queue_and_servers
def test_two_workers_finish_a_batch_whose_queue_is_wiped_and_trimmed(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(SLOW)
    scene.configure(mock, concurrency=30)
    batch = scene.submit(scene.write_prompts(400))
    workers = scene.worker("--workers", "2")
    with Redis.from_url(scene.servers["REDIS_URL"]) as redis:
        wipe_at(workers, mock, redis, 40)
        workers.until(lambda: redis.llen("rq:queue:bulk") >= 20, "tickets are staged anew")
        redis.ltrim("rq:queue:bulk", 5, 5)  # what a failover loses: some tickets, silently
        wipe_at(workers, mock, redis, 250)
        redis.delete("understudy:known-since", "understudy:planner", *redis.keys("rq:worker*"))
        workers.until(lambda: scene.ledger.ended() == 400, "all jobs end")
        until(lambda: len(redis.smembers("rq:workers")) == 2, "a wiped Redis shows the workers again")
    assert scene.ledger.states() == {"succeeded": 400}
    assert scene.ledger.count("result") == 400
    assert set(mock.times_answered().values()) == {1}
    workers.until(
        lambda: scene.ledger.rows("SELECT state FROM batch WHERE id = :id", id=batch)[0].state == "completed",
        "the batch is closed",
    )
