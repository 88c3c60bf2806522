"""Scenes for the end-to-end tests: on stores of their own, or on the servers that the environment names."""

import asyncio
import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis
from sqlalchemy import make_url
from stage_hands import Mock, Scene, fake_providers

from models.store import open_store


def _named_servers() -> tuple[str, str]:
    addresses = os.environ.get("REDIS_URL"), os.environ.get("DATABASE_URL")
    if all(addresses):
        return str(addresses[0]), str(addresses[1])
    if os.environ.get("CI"):
        pytest.fail("REDIS_URL and DATABASE_URL are not set: the checks must also run on real servers")
    pytest.skip("REDIS_URL and DATABASE_URL name no servers")


@contextmanager
def _redis_alone(url: str) -> Iterator[str]:
    """The URL of the named Redis database, empty, and for one test at a time however many processes run tests.

    With REDIS_DATABASES=4 also the three that follow it are the tests' own, and four of them can run at a time.
    """
    first = Redis.from_url(url).connection_pool.connection_kwargs.get("db", 0)
    numbers = range(first, first + int(os.environ.get("REDIS_DATABASES", "1")))
    with ExitStack() as stack:
        names = [Path(tempfile.gettempdir()) / f"understudy-tests-redis-{number}.lock" for number in numbers]
        files = [stack.enter_context(name.open("w")) for name in names]
        while (number := next((n for n, file in zip(numbers, files, strict=True) if _locked(file)), None)) is None:
            time.sleep(0.1)
        own = url if number == first else urlsplit(url)._replace(path=f"/{number}").geturl()
        with Redis.from_url(own) as connection:
            connection.flushdb()
            yield own
            connection.flushdb()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _new_database(address: str) -> Iterator[str]:
    name = f"understudy_e2e_{secrets.token_hex(6)}"
    server = make_url(address).set(drivername="postgresql")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            url = server.set(database=name).render_as_string(hide_password=False)
            asyncio.run(_migrate(url))
            yield url
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def _migrate(url: str) -> None:
    async with open_store(url, Path(), migrate=True):
        pass


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """`alone` (nothing but the data folder), `queue` (a Redis of its own, SQLite) or `servers` (those of the
    environment)."""
    kind = getattr(request, "param", "alone")
    with ExitStack() as stack:
        servers = {}
        if kind == "servers":
            redis_url, database_url = _named_servers()
            own = stack.enter_context(_redis_alone(redis_url))
            servers = {"REDIS_URL": own, "DATABASE_URL": stack.enter_context(_new_database(database_url))}
        elif kind == "queue":
            servers = {"REDIS_URL": request.getfixturevalue("redis_server")}
            with Redis.from_url(servers["REDIS_URL"]) as connection:
                connection.flushall()
        scene = Scene(tmp_path, servers)
        stack.callback(scene.close)
        yield scene


@pytest.fixture
def providers(tmp_path: Path) -> Iterator[Callable[[str], Mock]]:
    """Starts fake providers with a script in TOML."""
    with ExitStack() as stack:
        yield lambda script="": stack.enter_context(fake_providers(tmp_path, script))
