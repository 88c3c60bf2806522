"""Buffered, fenced writes: outcomes of many jobs are committed together, and held while the ledger is unavailable. Then
waiting API processes are told.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from understudy.models.jobs.execution import Settled
from understudy.models.jobs.submission import SINGLE
from understudy.models.queue import keys
from understudy.models.state import JobState
from understudy.models.store import Store, StoreDefect, StoreError, StoreOutage
from understudy.worker.concurrency import Coalescer
from understudy.worker.job import outcome
from understudy.worker.outages import OUTAGE_PAUSE_S

TOGETHER = 400
GATHER_S = 0.004
"""How long outcomes are gathered before they are committed together."""

COMMITS_AT_ONCE = 8
"""While this many commits are in progress, or held, further outcomes gather behind them."""

DOUBTED_TRIES = 30
"""Tries before an outcome counts as unwritable: a ledger that does not understand our statement may have been modified,
and may be repaired."""

PUBLISH_S = 1.0


class Settler:
    """Commits the outcomes of one worker. `tell` is called with the ids of the single jobs that ended, after the
    commit."""

    def __init__(self, worker_id: str, store: Store, tell: Callable[[Sequence[str]], None] = lambda _ids: None) -> None:
        self._worker_id = worker_id
        self._store = store
        self._tell = tell
        self._gathered: Coalescer[Settled, None] = Coalescer(
            self._handle, max_items=TOGETHER, max_delay_s=GATHER_S, at_once=COMMITS_AT_ONCE
        )
        self._uncommitted: dict[tuple[str, int], Settled] = {}
        self._doubts: Counter[tuple[str, int]] = Counter()
        self._held = 0
        self._nothing_held = asyncio.Event()
        self._nothing_held.set()

    async def add(self, settled: Settled) -> None:
        """Return when the ledger has it; a paid answer is held for as long as the ledger is unavailable."""
        self._uncommitted[_claim(settled)] = settled
        await self._gathered.add(settled)

    async def close(self) -> None:
        """Return when everything added is committed."""
        await self._gathered.close()

    def abandon(self) -> None:
        """Stop trying to commit what is held."""
        self._gathered.abandon()

    def uncommitted(self) -> list[Settled]:
        """Outcomes that are not known to be in the ledger."""
        return list(self._uncommitted.values())

    @property
    def holds(self) -> bool:
        """Outcomes are held because the ledger did not accept them: starting more jobs would add to them."""
        return self._held > 0

    async def until_nothing_is_held(self) -> None:
        await self._nothing_held.wait()

    async def _handle(self, outcomes: Sequence[Settled]) -> list[None]:
        left = await self._write(outcomes)
        if left:
            with self._holding(left):
                while left:
                    await asyncio.sleep(OUTAGE_PAUSE_S)
                    left = await self._write(left)
        return [None] * len(outcomes)

    @contextmanager
    def _holding(self, outcomes: Sequence[Settled]) -> Iterator[None]:
        self._held += len(outcomes)
        self._nothing_held.clear()
        try:
            yield
        finally:
            self._held -= len(outcomes)
            if not self._held:
                self._nothing_held.set()

    async def _write(self, outcomes: Sequence[Settled]) -> Sequence[Settled]:
        """Returns those to be tried again."""
        try:
            written = await self._store.claims.settle(self._worker_id, outcomes)
        except StoreOutage as outage:
            log.warning("The ledger did not accept %d outcomes, they are held: %s", len(outcomes), outage)
            return outcomes
        except Exception as refusal:
            if len(outcomes) == 1:
                return await self._end_otherwise(outcomes[0], refusal)
            # an unwritable outcome must not take its neighbours down
            return [left for each in outcomes for left in await self._write([each])]
        self._let_go(outcomes)
        self._tell([each.job_id for each in outcomes if each.job_id in written and _is_waited_for(each)])
        return []

    async def _end_otherwise(self, settled: Settled, refusal: Exception) -> Sequence[Settled]:
        """Fail the job with that as the reason, if the ledger accepts at least this."""
        job_id, claim = settled.job_id, _claim(settled)
        if isinstance(refusal, StoreDefect):
            self._doubts[claim] += 1
            if self._doubts[claim] < DOUBTED_TRIES:
                log.error("The ledger did not accept the outcome of job %s, it is held: %s", job_id, refusal)
                return [settled]
        said = str(refusal) if isinstance(refusal, StoreError) else type(refusal).__name__
        log.error("The ledger cannot store the outcome of job %s: %s", job_id, said)
        instead = outcome.unwritable(settled)
        try:
            if await self._store.claims.settle(self._worker_id, [instead]) and _is_waited_for(instead):
                self._tell([job_id])
        except (StoreOutage, StoreDefect):
            return [settled]
        except Exception as defect:
            log.error("Job %s cannot be ended: %s", job_id, type(defect).__name__)
        self._let_go([settled])
        return []

    def _let_go(self, outcomes: Sequence[Settled]) -> None:
        for each in outcomes:
            self._uncommitted.pop(_claim(each), None)
            self._doubts.pop(_claim(each), None)


def _claim(settled: Settled) -> tuple[str, int]:
    return settled.job_id, settled.claim_no


def _is_waited_for(settled: Settled) -> bool:
    return settled.batch_id == SINGLE and settled.state is not JobState.QUEUED


log = logging.getLogger(__name__)


class Announcer:
    """Publishes ids of finished jobs to waiting API processes, in batches, without blocking the caller.

    Best effort: errors are logged, not raised. Waiters notice what Redis loses: they check the ledger once a second.
    """

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
