"""Many jobs: waiting in the ledger while Redis stays small, and in flight in one process."""

from collections.abc import Callable

import pytest
from redis import Redis
from stage_hands import Mock, Scene, queue_and_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time


def assert_redis_stays_small(scene: Scene, mock: Mock, backlog: int) -> None:
    """Tickets are bounded by what can start soon, from the first moment and until the backlog is gone."""
    scene.configure(mock, concurrency=100)
    scene.submit(scene.write_prompts(backlog))
    worker = scene.worker()
    with Redis.from_url(scene.servers["REDIS_URL"]) as redis:
        most = 0

        def worked_off() -> bool:
            nonlocal most
            tickets = sum(redis.llen(f"rq:queue:{queue}") for queue in ("interactive", "normal", "bulk"))
            most = max(most, tickets)
            assert tickets <= 2_000, "tickets for seconds of work, not for the backlog"
            assert redis.zcard("rq:wip:bulk") <= 100
            return mock.answered() >= 1_500

        worker.until(worked_off, "much of the backlog is worked off")
        assert most >= 100, "the slots never starve"
    assert scene.ledger.states()["queued"] >= backlog - 8_000


@queue_and_servers
def test_redis_stays_small_with_a_backlog_of_20_000_jobs(scene: Scene, providers: Callable[[str], Mock]) -> None:
    assert_redis_stays_small(scene, providers("[answers]\nlatency_s = 0.2\n"), 20_000)


@pytest.mark.soak
@pytest.mark.parametrize("scene", ["queue"], indirect=True)
def test_redis_stays_small_with_a_backlog_of_100_000_jobs(scene: Scene, providers: Callable[[str], Mock]) -> None:
    assert_redis_stays_small(scene, providers("[answers]\nlatency_s = 0.2\n"), 100_000)


def test_a_thousand_calls_are_in_flight_in_one_process(scene: Scene, providers: Callable[[str], Mock]) -> None:
    mock = providers("[answers]\nlatency_s = 4\n")  # longer than slow start takes
    scene.configure(mock)
    run = scene.run(scene.write_prompts(3_000), "--max-concurrency", "1000")
    assert run.exit_code() == 0, run.said
    assert len(scene.lines()) == 3_000
    assert mock.stats()["peak_in_flight"] >= 950
