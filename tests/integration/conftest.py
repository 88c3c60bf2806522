"""Ledgers for the tests, SQLite in a folder of its own and PostgreSQL in a database of its own, and a limiter."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import redis.asyncio
from ledger_help import keep_empty_ledger
from sqlalchemy import make_url
from sqlmodel import SQLModel

from understudy.models.store import LEDGER_FILE, Store, open_store
from understudy.worker.leases import Leases
from understudy.worker.limits.limiter import Limiter

EMPTY = "; ".join(f'DELETE FROM "{name}"' for name in sorted(SQLModel.metadata.tables))
"""Much faster than TRUNCATE, which makes new files for all of them."""


def _no_server() -> None:
    if os.environ.get("CI"):
        pytest.fail("DATABASE_URL is not set: the checks must also run against PostgreSQL")
    pytest.skip("DATABASE_URL names no PostgreSQL server")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of an empty database on the server that DATABASE_URL names; dropped when the session ends."""
    address = os.environ.get("DATABASE_URL")
    if not address:
        _no_server()
        raise AssertionError("unreachable")
    name = f"understudy_test_{secrets.token_hex(6)}"
    server = make_url(address).set(drivername="postgresql")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def ledger_url(request: pytest.FixtureRequest) -> str | None:
    """The database that `open_store` opens: None for SQLite, an address for PostgreSQL."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgresql_url")


@pytest.fixture(scope="session", autouse=True)
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite ledger with its tables: copying it takes a tenth of the time of migrating."""

    async def make(folder: Path) -> None:
        async with open_store(None, folder):
            pass

    folder = tmp_path_factory.mktemp("empty")
    asyncio.run(make(folder))
    keep_empty_ledger(folder / LEDGER_FILE)
    return folder / LEDGER_FILE


@pytest.fixture
async def empty_url(ledger_url: str | None, tmp_path: Path) -> str | None:
    """The database of an empty migrated ledger, as `open_store` takes it; a SQLite one is created when it is opened."""
    if ledger_url is not None:
        async with open_store(ledger_url, tmp_path, migrate=True):
            _empty(ledger_url)
    return ledger_url


def _empty(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EMPTY)


@pytest.fixture
async def store(ledger_url: str | None, tmp_path: Path, empty_ledger: Path) -> AsyncIterator[Store]:
    """An empty ledger, of each kind in turn."""
    if ledger_url is None:
        shutil.copy(empty_ledger, tmp_path)
    async with open_store(ledger_url, tmp_path, migrate=True) as opened:
        if ledger_url is not None:
            _empty(ledger_url)
        yield opened


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def limiter(connection: redis.asyncio.Redis) -> Limiter:
    return Limiter(Leases(connection, "w1"))
