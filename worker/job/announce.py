"""Publishes ids of finished jobs to waiting API processes. Best effort: errors are logged, not raised.

Waiters notice what Redis loses: they check the ledger once a second.
"""

import asyncio
import logging
from collections.abc import Iterable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.queue import keys

log = logging.getLogger(__name__)

PUBLISH_S = 1.0


class Announcer:
    """Publishes announcements in batches, without blocking the caller."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._untold: list[str] = []
        self._telling: asyncio.Task[None] | None = None
        self._suffering = False

    def tell(self, ids: Iterable[str]) -> None:
        """These jobs have ended, and that is committed."""
        self._untold.extend(ids)
        if self._untold and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._publish_all(), name="announce")

    async def close(self) -> None:
        """Return when everything announced was published, or publishing failed."""
        if self._telling is not None:
            await asyncio.wait([self._telling])

    async def _publish_all(self) -> None:
        while self._untold:
            ids, self._untold = self._untold, []
            try:
                async with asyncio.timeout(PUBLISH_S):
                    await self._redis.publish(keys.ENDED, " ".join(ids))
                self._suffering = False
            except (RedisError, OSError) as error:
                if not self._suffering:
                    log.warning(
                        "Waiting API processes were not notified (%s) and will find out by polling",
                        type(error).__name__,
                    )
                self._suffering = True
