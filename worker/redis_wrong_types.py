"""Deletes values in Redis that occupy our keys with another type.

Redis only hints (the ledger decides), so nothing is lost; left there, they would fail every command of ours on that
key, and with that all work. Keys that are not named like ours are not touched.
"""

import logging
import re
from collections.abc import Iterable

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from rq.defaults import RQ_KEY_PREFIX

from understudy.models.queue.keys import LIMITS, QUEUES

log = logging.getLogger(__name__)

TYPES = (
    (rf"{RQ_KEY_PREFIX}:queue:({'|'.join(QUEUES)})", b"list"),
    (rf"{RQ_KEY_PREFIX}:(queues|workers)", b"set"),
    (rf"{RQ_KEY_PREFIX}:workers:({'|'.join(QUEUES)})", b"set"),
    (rf"{RQ_KEY_PREFIX}:worker:[^:]+:executions", b"set"),
    (rf"{RQ_KEY_PREFIX}:worker:[^:]+", b"hash"),
    (rf"{RQ_KEY_PREFIX}:(job|execution):.*", b"hash"),
    (rf"{RQ_KEY_PREFIX}:executions:.*", b"zset"),
    (rf"{RQ_KEY_PREFIX}:(wip|finished|failed):({'|'.join(QUEUES)})", b"zset"),
    (rf"{RQ_KEY_PREFIX}:results:.*", b"stream"),
    ("understudy:(planner|known-since)", b"string"),
    ("understudy:latency", b"hash"),
    ("understudy:(rate|flight|day|cool|balance|fallbacks):.*", b"hash"),
)
"""The names of our keys, and their types. The first match counts."""

_NAMES = tuple((re.compile(name.encode(), re.DOTALL), type_) for name, type_ in TYPES)

AT_ONCE = 1_000

MISREAD = (
    "wrongtype",
    "attempt to ",
    "bad argument",
    "no integer representation",
    "is not an integer",
    "is not a float",
    "not a valid float",
    "nan or infinity",
    "would overflow",
)
"""What Redis says, in lower case, if a key has another type, or a script finds another value, than we write."""


def is_misread(error: object) -> bool:
    """Whether Redis failed because of its content, and not its own state (full, loading, read-only)."""
    said = str(error).lower()
    return isinstance(error, ResponseError) and any(words in said for words in MISREAD)


async def drop_misfits(redis: Redis) -> int:
    """Delete every key that is named like one of ours but has another type. Returns how many. Raises RedisError."""
    dropped, cursor = 0, 0
    for pattern in (f"{RQ_KEY_PREFIX}:*", LIMITS):
        while True:
            cursor, names = await redis.scan(cursor, match=pattern, count=AT_ONCE)
            dropped += await _drop_among(redis, names)
            if not cursor:
                break
    if dropped:
        log.warning("%d of our keys in Redis contained foreign data; they were deleted", dropped)
    return dropped


async def repair(redis: Redis, error: BaseException) -> None:
    """After an error of Redis: if it was caused by its content, make sure that it does not happen again."""
    if is_misread(error):
        try:
            await drop_misfits(redis)
        except RedisError as again:
            log.warning("Foreign data cannot be removed from Redis: %s", type(again).__name__)


async def _drop_among(redis: Redis, found: Iterable[bytes | str]) -> int:
    names = [name.encode() if isinstance(name, str) else name for name in found]
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.type(name)
        types = await pipeline.execute()
    wrong = [name for name, type_ in zip(names, types, strict=True) if _expected(name) not in (None, type_)]
    return int(await redis.unlink(*wrong)) if wrong else 0


def _expected(name: bytes) -> bytes | None:
    return next((type_ for pattern, type_ in _NAMES if pattern.fullmatch(name)), None)
