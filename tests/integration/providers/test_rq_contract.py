"""The same tickets on RQ's own SimpleWorker and on ours: what they leave in Redis, and what RQ's tools see and do."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq import Queue
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import Worker

from understudy.models.queue.keys import JOB_FUNCTION, QUEUES
from understudy.models.queue.tickets import RESULT_TTL_S, stage
from understudy.models.state import Priority
from understudy.worker.rq.bridge import Bridge, Shutdown, StopJob
from understudy.worker.rq.worker import RegisteredWorker

STANDINS = Path(__file__).parents[2] / "standins"
RQ = Path(sys.executable).with_name("rq")
WORKER = "contract"
TICKETS = [("job_a", Priority.INTERACTIVE), ("job_b", Priority.BULK), ("job_c", Priority.BULK)]

DIFFERENT_KEYS = {
    "rq:clean_groups": "lock of RQ's maintenance of groups, which we do not use and do not maintain",
}
DIFFERENT_FIELDS = {
    "success_callback_name": "empty; RQ rewrites the whole hash at the end, we write what changed",
    "failure_callback_name": "empty, as above",
    "stopped_callback_name": "empty, as above",
    "group_id": "empty, as above",
}
VOLATILE_FIELDS = {
    "data",  # RQ compresses it when it rewrites the hash; test_rq_reads_back_what_we_left compares what it means
    *("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat"),
    *("birth", "death", "pid", "total_working_time"),
    *("execution_id", "execution_started_at", "execution_ended_at"),
}
TTL_TOLERANCE_S = 3


@dataclass
class Kept:
    """The contents of one key, without what differs from run to run."""

    type: str
    ttl_s: int
    content: Any


@pytest.fixture
def connection(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def stand_in_for_the_job_function(tmp_path: Path) -> Path:
    """A folder with an importable function that has the tickets' function name and does nothing."""
    module, function = JOB_FUNCTION.rsplit(".", 1)
    path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    for package in list(path.relative_to(tmp_path).parents)[:-1]:
        (tmp_path / package / "__init__.py").touch()
    path.write_text(f"async def {function}(job_id):\n    assert job_id.startswith('job_')\n")
    return tmp_path


def rq(*arguments: str, python_path: Path = STANDINS) -> str:
    done = subprocess.run(
        [RQ, *arguments],
        env={**os.environ, "PYTHONPATH": str(python_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def run_worker(worker_class: str, redis_url: str, python_path: Path) -> None:
    settings = ("--burst", "--quiet", "--serializer", "json", "--name", WORKER, "--url", redis_url)
    rq("worker", "--worker-class", worker_class, *settings, *QUEUES, python_path=python_path)


def stage_now(redis_url: str, tickets: list[tuple[str, Priority]]) -> None:
    async def staging() -> None:
        async with AsyncRedis.from_url(redis_url) as redis:
            await stage(redis, tickets)

    asyncio.run(staging())


def without_volatile(fields: dict[bytes, bytes]) -> dict[str, str]:
    texts = {name.decode(): "" if name.decode() in VOLATILE_FIELDS else fields[name].decode() for name in fields}
    return {name: text for name, text in texts.items() if name not in DIFFERENT_FIELDS}


READERS: dict[str, Callable[[Redis, bytes], Any]] = {
    "hash": lambda redis, key: without_volatile(redis.hgetall(key)),
    "set": lambda redis, key: redis.smembers(key),
    "zset": lambda redis, key: set(redis.zrange(key, 0, -1)),
    "stream": lambda redis, key: [without_volatile(entry) for _, entry in redis.xrange(key)],
    "string": lambda redis, key: redis.get(key),
    "list": lambda redis, key: redis.lrange(key, 0, -1),
}


def what_is_kept(redis: Redis) -> dict[str, Kept]:
    kept = {}
    for key in redis.scan_iter():
        type = redis.type(key).decode()
        kept[key.decode()] = Kept(type, redis.ttl(key), READERS[type](redis, key))
    return kept


def test_our_worker_leaves_the_keys_that_a_stock_worker_leaves(
    redis_url: str, connection: Redis, stand_in_for_the_job_function: Path
) -> None:
    stage_now(redis_url, TICKETS)
    run_worker("rq.SimpleWorker", redis_url, stand_in_for_the_job_function)
    stock = what_is_kept(connection)
    connection.flushdb()
    stage_now(redis_url, TICKETS)
    run_worker("claim_and_finish.ClaimAndFinish", redis_url, STANDINS)
    ours = what_is_kept(connection)

    assert stock.keys() - DIFFERENT_KEYS.keys() == ours.keys()
    for key, kept in ours.items():
        assert (kept.type, kept.content) == (stock[key].type, stock[key].content), key
        assert abs(kept.ttl_s - stock[key].ttl_s) <= TTL_TOLERANCE_S, key
    for job_id, _ in TICKETS:
        assert ours[f"rq:job:{job_id}"].content["status"] == "finished"


def test_a_stock_worker_runs_our_tickets(
    redis_url: str, connection: Redis, stand_in_for_the_job_function: Path
) -> None:
    stage_now(redis_url, TICKETS)
    run_worker("rq.SimpleWorker", redis_url, stand_in_for_the_job_function)
    for job_id, _ in TICKETS:
        assert Job.fetch(job_id, connection=connection, serializer=JSONSerializer).is_finished


def test_rq_reads_back_what_we_left(redis_url: str, connection: Redis) -> None:
    stage_now(redis_url, TICKETS)
    run_worker("claim_and_finish.ClaimAndFinish", redis_url, STANDINS)
    job = Job.fetch("job_a", connection=connection, serializer=JSONSerializer)
    result = job.latest_result()
    assert (job.func_name, job.args, job.kwargs) == (JOB_FUNCTION, ["job_a"], {})
    assert (job.get_status(), job.worker_name, job.origin) == (JobStatus.FINISHED, WORKER, "interactive")
    assert job.started_at is not None and job.ended_at is not None and job.started_at <= job.ended_at
    assert result is not None
    assert (result.type, result.return_value, result.worker_name) == (Result.Type.SUCCESSFUL, None, WORKER)
    assert 0 < connection.ttl("rq:results:job_a") <= RESULT_TTL_S


async def test_rq_sees_what_waits_what_runs_and_what_ended(redis_url: str, connection: Redis) -> None:
    async with AsyncRedis.from_url(redis_url) as redis, Bridge(redis, WORKER, time.time) as bridge:
        await stage(redis, TICKETS)
        await bridge.beat()
        assert "queue bulk 2, 0 executing, 0 finished, 0 failed" in await info(redis_url)
        claimed = await bridge.claim(2)
        during = await info(redis_url)
        assert "queue interactive 0, 1 executing, 0 finished, 0 failed" in during
        assert "queue bulk 1, 1 executing, 0 finished, 0 failed" in during
        assert re.search(rf"worker {WORKER} .* busy interactive, normal, bulk\. jobs: 0 finished, 0 failed", during)
        await bridge.finish(claimed)
        after = await info(redis_url)
        assert "queue interactive 0, 0 executing, 1 finished, 0 failed" in after
        assert "queue bulk 1, 0 executing, 1 finished, 0 failed" in after
        assert re.search(rf"worker {WORKER} .* idle interactive, normal, bulk\. jobs: 2 finished, 0 failed", after)


async def info(redis_url: str) -> str:
    return await asyncio.to_thread(rq, "info", "--raw", "--url", redis_url)


async def test_executions_are_what_rq_says_this_worker_runs(redis_url: str, connection: Redis) -> None:
    async with AsyncRedis.from_url(redis_url) as redis, Bridge(redis, WORKER, time.time) as bridge:
        await stage(redis, TICKETS)
        await bridge.beat()
        await bridge.claim(3)
        (worker,) = Worker.all(connection=connection)
        by_rq = {(execution.id, execution.job_id) for execution in worker.get_current_executions()}
        started = Queue("bulk", connection=connection).started_job_registry.get_job_ids()
        job = Job.fetch("job_b", connection=connection, serializer=JSONSerializer)
        assert by_rq == {(execution.id, execution.job_id) for execution in bridge.executions}
        assert sorted(started) == ["job_b", "job_c"]
        assert job.is_started
        assert [execution.worker_name for execution in job.get_executions()] == [WORKER]


NO_COMMANDS = [
    b"\xff",
    "[]",
    "{}",
    "[" * 100_000,
    '{"command": "kill-horse"}',
    '{"command": "stop-job"}',
    '{"command": "stop-job", "job_id": ["job_a"]}',
    '{"command": "stop-job", "job_id": "job_of_another"}',
]


async def test_rq_commands_reach_the_worker_and_nonsense_does_no_harm(redis_url: str, connection: Redis) -> None:
    async with AsyncRedis.from_url(redis_url) as redis, Bridge(redis, WORKER, time.time) as bridge:
        await stage(redis, TICKETS)
        commands = bridge.commands()
        first = asyncio.ensure_future(anext(commands))
        await until(lambda: subscribers(connection) == 1)
        await bridge.claim(1)
        for nonsense in NO_COMMANDS:
            connection.publish(f"rq:pubsub:{WORKER}", nonsense)
        send_stop_job_command(connection, "job_a", serializer=JSONSerializer)
        assert await asyncio.wait_for(first, 5) == StopJob("job_a")
        send_shutdown_command(connection, WORKER)
        assert await asyncio.wait_for(anext(commands), 5) == Shutdown()
        await commands.aclose()


def subscribers(connection: Redis) -> int:
    return int(connection.pubsub_numsub(f"rq:pubsub:{WORKER}")[0][1])


async def test_commands_are_heard_again_after_the_connection_was_lost(redis_url: str, connection: Redis) -> None:
    async with AsyncRedis.from_url(redis_url) as redis, Bridge(redis, WORKER, time.time) as bridge:
        commands = bridge.commands()
        first = asyncio.ensure_future(anext(commands))
        await until(lambda: subscribers(connection) == 1)
        connection.client_kill_filter(_type="pubsub")
        await until(lambda: subscribers(connection) == 1)
        send_shutdown_command(connection, WORKER)
        assert await asyncio.wait_for(first, 5) == Shutdown()
        await commands.aclose()


async def test_a_suspended_rq_starts_nothing_until_it_is_resumed(redis_url: str, connection: Redis) -> None:
    async with AsyncRedis.from_url(redis_url) as redis, Bridge(redis, WORKER, time.time) as bridge:
        await stage(redis, TICKETS)
        await bridge.beat()
        await asyncio.to_thread(rq, "suspend", "--url", redis_url)
        assert await bridge.claim(10) == []
        assert " suspended interactive" in await info(redis_url)
        await asyncio.to_thread(rq, "resume", "--url", redis_url)
        assert len(await bridge.claim(10)) == 3


def test_a_worker_that_ends_hands_back_what_it_had_started(redis_url: str, connection: Redis) -> None:
    class LeavesInAHurry(RegisteredWorker):
        async def main(self, redis: AsyncRedis, bridge: Bridge, *, burst: bool) -> int:
            return len(await bridge.claim(10))

    stage_now(redis_url, TICKETS)
    assert LeavesInAHurry(list(QUEUES), name=WORKER, connection=connection).work(burst=True)
    assert Worker.all(connection=connection) == []
    assert {key.decode() for key in connection.scan_iter()} == {"rq:queues", f"rq:worker:{WORKER}"}


def test_a_worker_signs_off_although_its_main_failed(redis_url: str, connection: Redis) -> None:
    class Broken(RegisteredWorker):
        async def main(self, redis: AsyncRedis, bridge: Bridge, *, burst: bool) -> int:
            raise LookupError("a defect")

    with pytest.raises(LookupError):
        Broken(list(QUEUES), name=WORKER, connection=connection).work()
    assert Worker.all(connection=connection) == []


async def until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_worker_that_lost_redis_still_says_how_it_ended(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    class LosesRedis(RegisteredWorker):
        async def main(self, redis: AsyncRedis, bridge: Bridge, *, burst: bool) -> int:
            for lost in (redis, self.connection):
                lost.connection_pool.connection_kwargs["path"] = "/nonexistent/redis.sock"
            await redis.connection_pool.disconnect()
            self.connection.connection_pool.disconnect()
            redis.connection_pool.reset()
            self.connection.connection_pool.reset()
            return 1

    with Redis.from_url(redis_url, retry=None) as own:
        assert LosesRedis(list(QUEUES), name=WORKER, connection=own).work()
    assert "could not sign off" in caplog.text
