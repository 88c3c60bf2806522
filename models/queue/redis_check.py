"""Checks that a Redis server is suitable for the queues.

QueueUnavailable   it cannot be reached or must not be used; one sentence, without the password of its URL
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
)

from understudy.models.config.service_urls import BadAddress, redis_url
from understudy.models.errors import OutOfReach

SAFE_POLICY = "noeviction"
OLDEST_VERSION = (6, 2)
CONNECT_TIMEOUT_S = 5.0


RIGHT = "correct REDIS_URL"
OTHERWISE = f"cannot be reached; start it, {RIGHT}, or unset it"
NO_TLS = f"offers no TLS on this port; use redis:// instead of rediss://, or {RIGHT}"
NOT_REDIS = f"does not respond like Redis: another service may be listening there; {RIGHT}"
CLOSES = f"closes the connection; if it requires TLS use rediss://, else {RIGHT}"
TOO_LATE = f"does not answer within {CONNECT_TIMEOUT_S:g} s; check that it is up and that REDIS_URL is right about TLS"
NOT_TRUSTED = (
    "has a certificate that is not trusted, or one for another host; name its CA with ?ssl_ca_certs=FILE in REDIS_URL, "
    "or trust any with ?ssl_cert_reqs=none"
)

BY_KIND: tuple[tuple[type[BaseException], str], ...] = (
    (NoPermissionError, "denies this user INFO; allow it"),
    (AuthenticationError, f"rejects the password; {RIGHT}"),
    (AuthenticationWrongNumberOfArgsError, f"requires a user and a password; {RIGHT}"),
    (BusyLoadingError, "is loading its data; try again in a moment"),
    (ssl.SSLCertVerificationError, NOT_TRUSTED),
    (socket.gaierror, f"cannot be reached: its host name is not known; {RIGHT}"),
    (ConnectionRefusedError, f"cannot be reached: nothing listens there; start it, {RIGHT}, or unset it"),
    (FileNotFoundError, f"cannot be reached: its socket, or a file of an ssl_ option, is not there; {RIGHT}"),
)
"""Exception types, at any depth of the causes, and the text that follows the address. The first match counts."""

BY_WORDS = (
    ("wrong version number", NO_TLS),
    ("record layer failure", NO_TLS),
    ("certificate required", "requires a client certificate; name it with ?ssl_certfile=…&ssl_keyfile=…"),
    ("no password is set", f"has no password, but one is given; {RIGHT}"),
    ("without any password configured", f"has no password, but one is given; {RIGHT}"),
    ("max number of clients", "has no connections left (maxclients); close some or raise the limit"),
    ("db index is out of range", f"has no database with this number; {RIGHT}"),
    ("protected mode", "runs in protected mode; set a password there and add it to REDIS_URL"),
    ("protocol error", NOT_REDIS),
    ("invalid response", NOT_REDIS),
    ("closed by server", CLOSES),
    ("connection reset", CLOSES),
    ("ssl", f"does not accept our TLS connection; see the ssl_ options, or {RIGHT}"),
    ("timeout", TOO_LATE),
    ("timed out", TOO_LATE),
)
"""The same by the error's text, in lower case."""


class QueueUnavailable(OutOfReach):
    """The queue cannot be used at the moment."""


def shown_url(url: str) -> str:
    """A Redis URL for people: without user, password and options."""
    try:
        parts = urlsplit(redis_url(url))
        host = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else ""
    except ValueError:
        return "the URL in REDIS_URL"
    return f"{parts.scheme}://{host}{parts.path}"


async def check_redis(url: str) -> list[str]:
    """Reject a Redis that would lose queues by design; return warnings about one that may lose them by accident.

    Raises QueueUnavailable.
    """
    where = shown_url(url)
    async with connected(url) as redis:
        info = await redis.info()
    _refuse_unfit(info, where)
    return _warnings(info, where)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A connection for a few questions. Raises QueueUnavailable for whatever prevents an answer while it is used."""
    try:
        async with Redis.from_url(
            redis_url(url), socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=CONNECT_TIMEOUT_S
        ) as redis:
            yield redis
    except BadAddress as error:
        raise QueueUnavailable(f"REDIS_URL {error}") from None
    except (RedisError, OSError, ValueError) as error:
        raise QueueUnavailable(f"Redis at {shown_url(url)} {_why(error)}") from None


def _why(error: Exception) -> str:
    for kind, reason in BY_KIND:
        # redis-py wraps errors during connection in a ConnectionError
        if any(isinstance(each, kind) for each in _causes(error)):
            return reason
    said = " ".join(str(each) for each in _causes(error)).lower()
    return next((reason for words, reason in BY_WORDS if words in said), OTHERWISE)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and its causes, outermost first."""
    found = [error]
    while (behind := found[-1].__cause__ or found[-1].__context__) is not None and behind not in found:
        found.append(behind)
    return found


def _refuse_unfit(info: dict[str, Any], where: str) -> None:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_VERSION:
        raise QueueUnavailable(f"Redis at {where} is version {version}; 6.2 or newer is needed")
    if info.get("cluster_enabled"):
        raise QueueUnavailable(
            f"Redis at {where} is a Redis Cluster, which RQ cannot use; use one primary with replicas"
        )
    if info.get("role") == "slave":
        raise QueueUnavailable(f"Redis at {where} is a replica, which is read-only; name its primary in REDIS_URL")
    policy = info.get("maxmemory_policy", SAFE_POLICY)
    if policy != SAFE_POLICY and info.get("maxmemory"):
        raise QueueUnavailable(
            f"Redis at {where} drops keys when memory is short (maxmemory-policy {policy}); set it to {SAFE_POLICY}"
        )


def _warnings(info: dict[str, Any], where: str) -> list[str]:
    warnings = []
    policy = info.get("maxmemory_policy", SAFE_POLICY)
    if policy != SAFE_POLICY:
        warnings.append(
            f"Redis at {where} would drop keys if it had a memory limit; set maxmemory-policy {SAFE_POLICY}"
        )
    if info.get("aof_enabled") == 0:
        warnings.append(
            f"Redis at {where} has no append-only file: after a crash its queues are rebuilt from the ledger, "
            "which takes a while; set appendonly yes"
        )
    return warnings
