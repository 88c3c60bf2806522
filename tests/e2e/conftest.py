"""Scenes for the end-to-end tests: on their own stores, or on the servers that the environment names."""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from shared_redis import redis_alone
from sqlalchemy import make_url
from stage_hands import Mock, Scene, fake_providers

from understudy.models.store import open_store


def _named_servers() -> tuple[str, str]:
    addresses = os.environ.get("REDIS_URL"), os.environ.get("DATABASE_URL")
    if all(addresses):
        return str(addresses[0]), str(addresses[1])
    if os.environ.get("CI"):
        pytest.fail("REDIS_URL and DATABASE_URL are not set: the checks must also run on real servers")
    pytest.skip("REDIS_URL and DATABASE_URL name no servers")


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
    """`alone` (only the data folder), `queue` (its own Redis, SQLite) or `servers` (those of the environment)."""
    kind = getattr(request, "param", "alone")
    with ExitStack() as stack:
        servers = {}
        if kind == "servers":
            redis_url, database_url = _named_servers()
            own = stack.enter_context(redis_alone(redis_url))
            servers = {"REDIS_URL": own, "DATABASE_URL": stack.enter_context(_new_database(database_url))}
        elif kind == "queue":
            servers = {"REDIS_URL": request.getfixturevalue("redis_server")}
            with Redis.from_url(servers["REDIS_URL"]) as connection:
                connection.flushdb()
        scene = Scene(tmp_path, servers)
        stack.callback(scene.close)
        yield scene


@pytest.fixture
def providers() -> Iterator[Callable[[str], Mock]]:
    """Starts fake providers with a script in TOML."""
    with ExitStack() as stack:
        yield lambda script="": stack.enter_context(fake_providers(script))
