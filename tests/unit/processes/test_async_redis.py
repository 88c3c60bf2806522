"""The asyncio connection that a worker derives from the one that RQ's command line gives it."""

from typing import Any

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import SSLConnection
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.sentinel import Sentinel

from understudy.worker.rq.queue_watcher import LISTEN_S
from understudy.worker.rq.worker import async_redis


def settings_of(url: str) -> dict[str, Any]:
    return async_redis(SyncRedis.from_url(url)).connection_pool.connection_kwargs


def test_it_goes_to_the_same_server_database_and_user() -> None:
    settings = settings_of("redis://somebody:secret@redis.example:6390/3")
    expected = {"host": "redis.example", "port": 6390, "db": 3, "username": "somebody", "password": "secret"}
    assert expected.items() <= settings.items()


def test_it_uses_the_same_socket() -> None:
    client = async_redis(SyncRedis.from_url("unix:///run/redis.sock?db=2"))
    assert client.connection_pool.connection_class is UnixDomainSocketConnection
    assert {"path": "/run/redis.sock", "db": 2}.items() <= client.connection_pool.connection_kwargs.items()


@pytest.mark.parametrize("url", ["rediss://redis.example:6390/3", "rediss://redis.example?ssl_ca_certs=/ca.pem"])
def test_it_is_encrypted_when_the_other_is(url: str) -> None:
    client = async_redis(SyncRedis.from_url(url))
    assert client.connection_pool.connection_class is SSLConnection
    assert settings_of(url).get("ssl_ca_certs") == ("/ca.pem" if "ca.pem" in url else None)


def test_it_gives_blocking_commands_the_time_they_need() -> None:
    connection = SyncRedis(host="redis.example", socket_timeout=0.1)
    assert async_redis(connection).connection_pool.connection_kwargs["socket_timeout"] > LISTEN_S


def test_sentinel_is_refused_with_a_way_out() -> None:
    master = Sentinel([("redis.example", 26379)]).master_for("main")
    with pytest.raises(ValueError, match="understudy worker"):
        async_redis(master)
