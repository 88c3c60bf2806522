"""Which Redis is refused, which is warned about."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from models.redis_check import QueueUnavailable, check_redis


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as connection:
        before = await connection.config_get("maxmemory", "maxmemory-policy", "appendonly")
        yield connection
        for name, value in before.items():
            await connection.config_set(name, value)


async def test_a_redis_that_evicts_is_refused(redis: Redis, redis_url: str) -> None:
    await redis.config_set("maxmemory", "100mb")
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(QueueUnavailable, match="maxmemory-policy allkeys-lru"):
        await check_redis(redis_url)


async def test_a_redis_that_would_evict_if_it_had_a_limit_is_warned_about(redis: Redis, redis_url: str) -> None:
    await redis.config_set("maxmemory", "0")
    await redis.config_set("maxmemory-policy", "volatile-lru")
    assert any("noeviction" in warning for warning in await check_redis(redis_url))


async def test_a_redis_without_append_only_file_is_warned_about(redis: Redis, redis_url: str) -> None:
    assert any("append-only" in warning for warning in await check_redis(redis_url))


async def test_a_fit_redis_passes_without_a_word(redis: Redis, redis_url: str) -> None:
    await redis.config_set("appendonly", "yes")
    assert await check_redis(redis_url) == []


async def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(QueueUnavailable) as refused:
        await check_redis("redis://me:hush@127.0.0.1:1/3")
    assert "redis://127.0.0.1:1/3" in str(refused.value)
    assert "hush" not in str(refused.value)


async def test_a_wrong_password_is_said_so(redis: Redis, redis_url: str) -> None:
    await redis.execute_command("ACL", "SETUSER", "guarded", "on", ">right", "~*", "+@all")
    try:
        with pytest.raises(QueueUnavailable, match="refuses the password"):
            await check_redis(redis_url.replace("unix://", "unix://guarded:wrong@"))
        await redis.execute_command("ACL", "SETUSER", "guarded", "-info")
        with pytest.raises(QueueUnavailable, match="does not let this user run INFO"):
            await check_redis(redis_url.replace("unix://", "unix://guarded:right@"))
    finally:
        await redis.execute_command("ACL", "DELUSER", "guarded")


@pytest.mark.parametrize("url", ["localhost:6379", "http://127.0.0.1/", ""])
async def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(QueueUnavailable, match="not a Redis URL"):
        await check_redis(url)
