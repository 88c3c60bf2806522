"""RQ's own worker and RQ's own tools on our queue."""

import asyncio
import subprocess
from collections.abc import Callable

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq.command import send_stop_job_command
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import Worker
from stage_hands import BIN, DEADLINE_S, Mock, Scene, digest, queue_and_servers

from understudy.models.queue.tickets import stage
from understudy.models.state import Priority

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time

QUEUES = ("interactive", "normal", "bulk")
VERY_SLOW = "[answers]\nlatency_s = 60\n"
REFUSES_AT_FIRST = """
[[rules]]
provider = "alpha"
message = "prompt [0-1]$"
fail = "rate_limit"
retry_after_s = 2
first_per_prompt = 1
"""


@queue_and_servers
@pytest.mark.slow
def test_a_stock_rq_worker_drains_the_queue_and_jobs_that_are_put_back(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(REFUSES_AT_FIRST)
    scene.configure(mock)
    batch = scene.submit(scene.write_prompts(6))
    first = scene.ledger.rows("SELECT id FROM job WHERE batch_id = :id ORDER BY id LIMIT 1", id=batch)[0].id
    asyncio.run(write_tickets(scene.servers["REDIS_URL"], [first]))
    stock = scene.start(BIN / "rq", "worker", "-u", scene.servers["REDIS_URL"], "-S", "json", *QUEUES)
    stock.until(lambda: scene.ledger.ended() == 6, "the stock worker has run everything: each ticket leads to others")
    stock.until(lambda: scene.ledger.count("worker") == 0, "it signs off")
    assert scene.ledger.states() == {"succeeded": 6}
    assert scene.ledger.count("result") == 6
    assert scene.ledger.count("attempt WHERE failure = 'rate_limit'") == 2
    assert scene.ledger.count("job WHERE claim_no > 1") >= 2, "a refused job was put back, not failed"
    assert mock.times_answered() == {digest(f"prompt {number}"): 1 for number in range(6)}


async def write_tickets(url: str, ids: list[str]) -> None:
    async with AsyncRedis.from_url(url) as redis:
        await stage(redis, [(each, Priority.BULK) for each in ids])


@queue_and_servers
def test_rqs_tools_see_what_waits_and_runs_and_a_stop_command_cancels_the_job_and_its_call(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers(VERY_SLOW)
    scene.configure(mock, concurrency=20, grace_s=0.0)
    scene.submit(scene.write_prompts(100))
    worker = scene.worker()
    worker.until(lambda: mock.in_flight() == 20, "all slots are taken")
    url = scene.servers["REDIS_URL"]
    info = subprocess.run(
        [BIN / "rq", "info", "-u", url, "--raw"], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    ).stdout
    assert "queue bulk 80" in info
    assert "20 executing" in info
    assert f"worker {scene.ledger.rows('SELECT id FROM worker')[0].id}" in info
    with Redis.from_url(url) as redis:
        [seen] = Worker.all(connection=redis)
        assert seen.name == scene.ledger.rows("SELECT id FROM worker")[0].id
        victim = scene.ledger.rows("SELECT id, custom_id FROM job WHERE state = 'running' ORDER BY id")[0]
        assert Job.fetch(victim.id, connection=redis, serializer=JSONSerializer).get_status() == "started"
        send_stop_job_command(redis, victim.id, serializer=JSONSerializer)
        worker.until(
            lambda: scene.ledger.rows("SELECT state FROM job WHERE id = :id", id=victim.id)[0].state == "cancelled",
            "the job is cancelled in the ledger",
            5.0,
        )
        worker.until(lambda: scene.ledger.states()["running"] == 20, "its slot is taken by another")
        [attempt] = scene.ledger.rows("SELECT failure, latency_ms FROM attempt WHERE job_id = :id", id=victim.id)
        assert attempt.failure == "cancelled"
        assert attempt.latency_ms < 30_000, "its call was cut short"
        assert scene.ledger.count("result WHERE job_id = :id", id=victim.id) == 0
    assert digest(victim.custom_id.replace("line-", "prompt ")) not in mock.times_answered()
