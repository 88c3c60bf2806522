"""Atomic scripts in Redis, and how a worker sends them: concurrent ones share a round trip.

ARGV[1] of every script is the time in ms to use instead of Redis' own clock, or "". Data in Redis is only a hint: keys
in which a script finds values that none of ours wrote are deleted, so that the next one finds nothing.

Only the scripts that work on RQ's keys (`worker.rq.bridge`, `models.queue.tickets`) are sent one by one, by redis-py.

    RedisUnavailable   Redis is unavailable, or rejected the script
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from understudy.models.queue.lua_scripts import script_text
from understudy.worker.concurrency import Coalescer
from understudy.worker.redis_wrong_types import is_misread

log = logging.getLogger(__name__)

TOGETHER = 100
AT_ONCE = 20
"""Concurrent round trips: far fewer than a client's connections (100), whatever the number of jobs."""


NO_NUMBERS = frozenset({b"nan", b"-nan", b"inf", b"-inf"})
"""How Lua prints a number that none of our scripts wrote."""


class RedisUnavailable(RedisError):
    """Redis is unavailable; no new call may start."""


class NoNumber(Exception):
    """A script calculated with a value that is not a number."""


@dataclass(frozen=True, slots=True)
class Script:
    """Lua, and the name under which Redis caches it once loaded."""

    text: str = field(repr=False, hash=False, compare=False)
    sha: str

    @classmethod
    def load(cls, name: str) -> "Script":
        """From a file, by its path below the package; with everything it includes."""
        return cls.of(script_text(name))

    @classmethod
    def of(cls, text: str) -> "Script":
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_Command = tuple[Script, Sequence[str], Sequence[Any]]
"""A script, its KEYS and its ARGV."""


class ScriptRunner:
    """Sends scripts; those requested in one iteration of the event loop are sent together."""

    def __init__(self, redis: redis.asyncio.Redis) -> None:
        self.redis = redis
        self.now_ms: float | None = None  # set by tests; None is Redis' own clock
        self._asked: Coalescer[_Command, Any] = Coalescer(
            self._execute, max_items=TOGETHER, max_delay_s=0.0, at_once=AT_ONCE
        )

    async def run(self, script: Script, names: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's reply. Raises RedisUnavailable."""
        time_ms = "" if self.now_ms is None else self.now_ms
        reply = await self._asked.add((script, tuple(names), (time_ms, *args)))
        if isinstance(reply, Exception):
            raise RedisUnavailable(f"Redis rejects a script: {type(reply).__name__}") from reply
        return reply

    async def _execute(self, commands: Sequence[_Command]) -> list[Any]:
        """One pipeline for all; a script that Redis lost (a restart, a wipe) is sent in full, and cached again."""
        try:
            replies = await self._send(commands)
            lost = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if lost:
                again = await self._send([commands[index] for index in lost], whole=True)
                for index, reply in zip(lost, again, strict=True):
                    replies[index] = reply
            return await self._without_misread(commands, replies)
        except (RedisError, OSError) as error:
            raise RedisUnavailable(f"Redis is unavailable: {type(error).__name__}") from error

    async def _without_misread(self, commands: Sequence[_Command], replies: list[Any]) -> list[Any]:
        """Deletes the keys whose content broke a script; its reply is an error."""
        odd: dict[str, None] = {}
        for index, ((_, names, _), reply) in enumerate(zip(commands, replies, strict=True)):
            if isinstance(reply, list) and any(isinstance(word, bytes) and word in NO_NUMBERS for word in reply):
                replies[index] = reply = NoNumber()
            if isinstance(reply, NoNumber) or is_misread(reply):
                odd |= dict.fromkeys(names)
        if odd:
            log.warning("Up to %d keys in Redis contained data that no worker wrote; they were deleted", len(odd))
            await self.redis.unlink(*odd)
        return replies

    async def _send(self, commands: Sequence[_Command], *, whole: bool = False) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for script, names, args in commands:
                if whole:
                    pipeline.eval(script.text, len(names), *names, *args)
                else:
                    pipeline.evalsha(script.sha, len(names), *names, *args)
            return list(await pipeline.execute(raise_on_error=False))
