"""Is this Redis fit to hold our queues?

QueueUnavailable   it cannot be reached or must not be used; one sentence, without the password of its URL
"""

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

SAFE_POLICY = "noeviction"
OLDEST_VERSION = (6, 2)
CONNECT_TIMEOUT_S = 5.0


class QueueUnavailable(Exception):
    """The queue cannot be used now."""


def shown_url(url: str) -> str:
    """A Redis URL as people may see it: without user, password and options."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else ""
    except ValueError:
        return "the URL in REDIS_URL"
    return f"{parts.scheme}://{host}{parts.path}"


async def check_redis(url: str) -> list[str]:
    """Refuse a Redis that would lose queues by design; return warnings about one that may lose them by accident.

    Raises QueueUnavailable.
    """
    where = shown_url(url)
    try:
        async with Redis.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=CONNECT_TIMEOUT_S
        ) as redis:
            info = await redis.info()
    except ValueError:
        raise QueueUnavailable("REDIS_URL is not a Redis URL; write it as redis://host:6379/0") from None
    except (RedisError, OSError) as error:
        raise QueueUnavailable(f"Redis at {where} {_why(error)}") from None
    _refuse_unfit(info, where)
    return _warnings(info, where)


def _why(error: Exception) -> str:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return f"does not answer within {CONNECT_TIMEOUT_S:g} s; see that it is up and REDIS_URL is right"
    if isinstance(error, NoPermissionError):
        return "does not let this user run INFO; allow it"
    # while it connects, redis-py wraps a refused password in a ConnectionError
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        return "refuses the password; correct REDIS_URL"
    return "cannot be reached; start it, correct REDIS_URL, or unset it"


def _refuse_unfit(info: dict[str, Any], where: str) -> None:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_VERSION:
        raise QueueUnavailable(f"Redis at {where} is version {version}; 6.2 or newer is needed")
    if info.get("cluster_enabled"):
        raise QueueUnavailable(
            f"Redis at {where} is a Redis Cluster, which RQ cannot use; use one primary with replicas"
        )
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
            f"Redis at {where} keeps no append-only file: after a crash its queues are built again from the ledger, "
            "which takes a while; set appendonly yes"
        )
    return warnings
