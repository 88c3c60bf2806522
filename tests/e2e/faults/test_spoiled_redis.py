"""Nonsense is written to every key and channel during work: none of our processes ends because of it."""

import random
import time
from collections.abc import Callable

import httpx
import pytest
from redis import Redis, ResponseError
from stage_hands import DEADLINE_S, Mock, Scene, queue_and_servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SPOILING_S = 6.0
ODD = [b"", b"\xff\xfe\x00", b"nan", b"-inf", b"1e308", b"-1", b"9" * 400, b"x|y", b"inf|inf", b"1|", b"[" * 2_000]
IDS = [b"\xff", b"", b"a:b", b"j\xc3\xb6b", b"a" * 100_000, b"job_x"]
MESSAGES = [*ODD, b"job_\xff", b'{"command": 5}', b'{"command":"stop-job","job_id":{}}', b"[" * 100_000, b"x" * 500_000]
NAMES = [b"rq:workers", b"rq:queues", b"understudy:latency", b"understudy:planner", b"understudy:rate:\xff:a:b"]


def spoil(redis: Redis, rng: random.Random) -> None:
    """One round: some keys get another type or other values, queues get other tickets, channels other messages."""
    names = [*redis.scan_iter(count=1000), *NAMES]
    for name in rng.sample(names, min(5, len(names))):
        try:
            if redis.type(name) == b"hash" and rng.random() < 0.7:
                field = rng.choice([*redis.hkeys(name), b"\xff"])  # type: ignore[misc]
                redis.hset(name, field, rng.choice(ODD))  # type: ignore[arg-type]
                continue
            redis.delete(name)
            write = rng.choice([redis.rpush, redis.sadd, redis.set])
            write(name, rng.choice(ODD))
        except ResponseError:
            continue
    for queue in ("interactive", "normal", "bulk"):
        try:
            id_ = rng.choice(IDS)
            redis.rpush(f"rq:queue:{queue}", id_)
            redis.hset(b"rq:job:" + id_, "data", rng.choice(ODD))  # type: ignore[arg-type]
        except ResponseError:
            continue
    for channel in redis.pubsub_channels("*"):
        redis.publish(channel, rng.choice(MESSAGES))


@queue_and_servers
def test_neither_workers_nor_the_api_end_and_all_jobs_do(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers("[answers]\nlatency_s = 0.05\n"), concurrency=20)
    server, url = scene.serve("up", "--workers", "2")
    workers = set(server.workers())
    rng, seed = random.Random(11), iter(range(1_000_000))
    ids = []
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as http, Redis.from_url(scene.servers["REDIS_URL"]) as redis:
        batch = scene.submit(scene.write_prompts(100))
        until = time.monotonic() + SPOILING_S
        while time.monotonic() < until:
            spoil(redis, rng)
            for path in ("/healthz", "/readyz", "/metrics", "/v1/providers"):
                assert http.get(path).status_code in (200, 503), path
            job = http.post("/v1/jobs", json={"model": "beta/m", "messages": message(next(seed))})
            assert job.status_code == 202, job.text
            ids.append(job.json()["id"])
            assert http.get(f"/v1/jobs/{ids[0]}").status_code == 200
        assert set(server.workers()) == workers, "no worker ended"
        redis.flushdb()  # numbers that look like ours would last long
        server.until(lambda: scene.ledger.count("job WHERE ended_at IS NULL") == 0, "all jobs end")
        heard = http.post("/v1/jobs", json={"model": "beta/m", "messages": message(-1)}, params={"wait": 20}).json()
        assert heard["state"] == "succeeded"
        assert redis.pubsub_numsub("understudy:ended")[0][1] >= 1, "the API still listens"
    assert scene.ledger.count("result WHERE batch_id = :id", id=batch) == 100


def message(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"prompt of the api {number}"}]
