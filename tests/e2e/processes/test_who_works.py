"""`understudy workers`: which workers run and what waits, even if Redis holds keys that are not ours."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from stage_hands import Mock, Scene, queue_and_servers, until

pytestmark = pytest.mark.timeout(400)  # tests on shared servers run one at a time


@pytest.mark.slow
@queue_and_servers
def test_it_shows_each_worker_with_its_jobs_and_the_tickets_that_wait(
    scene: Scene, providers: Callable[[str], Mock]
) -> None:
    mock = providers("[answers]\nlatency_s = 60\n")
    scene.configure(mock, concurrency=10, grace_s=0.0)
    scene.submit(scene.write_prompts(40))
    before = scene.type("workers")
    assert before.returncode == 0 and "no worker is running" in before.stdout
    worker = scene.worker()
    worker.until(lambda: mock.in_flight() == 10, "all slots are taken")
    until(lambda: seen(scene)["tickets"]["bulk"] > 0, "the others have tickets")
    shown = seen(scene)
    [one] = shown["workers"]
    assert (one["running"], one["concurrency"], shown["suspended"]) == (10, 10, False)
    assert one["id"] in scene.type("workers").stdout
    with Redis.from_url(scene.servers["REDIS_URL"]) as redis:
        redis.set("rq:suspended", 1)
        redis.delete("rq:queue:interactive")
        redis.set("rq:queue:interactive", b"\xff")
        said = scene.type("workers")
        assert "claiming is suspended" in said.stdout and "interactive" in said.stdout
        worker.until(lambda: redis.type("rq:queue:interactive") == b"none", "the planner makes room")
        redis.delete("rq:suspended")
        assert seen(scene)["suspended"] is False


def seen(scene: Scene) -> dict[str, Any]:
    return dict(json.loads(scene.type("workers", "--json").stdout))
