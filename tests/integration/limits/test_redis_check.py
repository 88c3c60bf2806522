"""Which Redis servers are refused, and which cause a warning."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from understudy.models.queue.redis_check import QueueUnavailable, check_redis


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
        with pytest.raises(QueueUnavailable, match="rejects the password"):
            await check_redis(redis_url.replace("unix://", "unix://guarded:wrong@"))
        await redis.execute_command("ACL", "SETUSER", "guarded", "-info")
        with pytest.raises(QueueUnavailable, match="denies this user INFO"):
            await check_redis(redis_url.replace("unix://", "unix://guarded:right@"))
    finally:
        await redis.execute_command("ACL", "DELUSER", "guarded")


async def test_why_it_cannot_be_used_is_said(redis_url: str) -> None:
    for url, words in (
        ("redis://:hush@127.0.0.1:1", "nothing listens there"),
        ("redis://:hush@no.such.host.invalid", "its host name is not known"),
        ("unix:///no/such/redis.sock", "is not there"),
        ("redis://:hu/sh@127.0.0.1:1", "write @ as %40"),
        ("redis://:hush@127.0.0.1:1/0?retries=3", "has the option 'retries', which is unknown"),
    ):
        with pytest.raises(QueueUnavailable, match=words) as refused:
            await check_redis(url)
        assert "hu" not in str(refused.value).replace("has the", "")


async def test_a_replica_is_refused(redis: Redis, redis_url: str) -> None:
    await redis.replicaof("127.0.0.1", "1")  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(QueueUnavailable, match="is a replica, which is read-only; name its primary"):
            await check_redis(redis_url)
    finally:
        await redis.replicaof("NO", "ONE")  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, self-signed; its key is in the same file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


async def test_what_is_wrong_about_tls_is_said(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", ssl=context) as with_tls,
        await asyncio.start_server(answer, "127.0.0.1") as without,
    ):
        tls, plain = (server.sockets[0].getsockname()[1] for server in (with_tls, without))
        for url, words in (
            (f"rediss://127.0.0.1:{tls}", "has a certificate that is not trusted"),
            (f"rediss://127.0.0.1:{tls}?ssl_cert_reqs=CERT_NONE", "does not respond like Redis"),
            (f"rediss://127.0.0.1:{tls}?ssl_ca_certs={certificate}", "does not respond like Redis"),
            (f"redis://127.0.0.1:{tls}", "closes the connection; if it requires TLS use rediss://"),
            (f"rediss://127.0.0.1:{plain}", "offers no TLS on this port; use redis://"),
            (f"redis://127.0.0.1:{plain}", "does not respond like Redis"),
        ):
            with pytest.raises(QueueUnavailable, match=words):
                await check_redis(url)


@pytest.mark.parametrize("url", ["localhost:6379", "http://127.0.0.1/", ""])
async def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(QueueUnavailable, match="not a Redis URL"):
        await check_redis(url)
