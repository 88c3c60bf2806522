"""Buffered, fenced writes: what came of many jobs is committed together, and held while the ledger is away."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from models.records import SINGLE, Settled
from models.state import JobState
from models.store import Store, StoreBusy, StoreUnavailable
from worker import outcome
from worker.coalesce import Coalescer

log = logging.getLogger(__name__)

TOGETHER = 400
GATHER_S = 0.004
"""How long outcomes are gathered before they are committed together."""

OUTAGE_PAUSE_S = 1.0


class Settler:
    """Commits the outcomes of one worker. `tell` is given the ids of the single jobs that ended, after the commit."""

    def __init__(self, worker_id: str, store: Store, tell: Callable[[Sequence[str]], None] = lambda _ids: None) -> None:
        self._worker_id = worker_id
        self._store = store
        self._tell = tell
        self._gathered: Coalescer[Settled, None] = Coalescer(self._handle, max_items=TOGETHER, max_delay_s=GATHER_S)

    async def add(self, settled: Settled) -> None:
        """Return when the ledger has it; an answer that was paid for is held for as long as the ledger is away."""
        await self._gathered.add(settled)

    async def close(self) -> None:
        """Return when everything that was added is committed."""
        await self._gathered.close()

    async def _handle(self, outcomes: Sequence[Settled]) -> list[None]:
        await self._commit(outcomes)
        return [None] * len(outcomes)

    async def _commit(self, outcomes: Sequence[Settled]) -> None:
        while True:
            try:
                written = await self._store.settle(self._worker_id, outcomes)
                self._tell([each.job_id for each in outcomes if each.job_id in written and _is_waited_for(each)])
                return
            except (StoreBusy, StoreUnavailable) as error:
                log.warning("The ledger did not take %d outcomes, they are held: %s", len(outcomes), error)
                await asyncio.sleep(OUTAGE_PAUSE_S)
            except Exception as defect:
                return await self._commit_one_by_one(outcomes, defect)

    async def _commit_one_by_one(self, outcomes: Sequence[Settled], defect: Exception) -> None:
        """What cannot be written must not take its neighbours along; its job fails with that as the reason."""
        if len(outcomes) > 1:
            for each in outcomes:
                await self._commit([each])
        elif outcomes[0].result == outcome.UNWRITABLE:
            log.error("Job %s cannot be ended: %s", outcomes[0].job_id, type(defect).__name__)
        else:
            log.error("The ledger cannot hold what came of job %s: %s", outcomes[0].job_id, type(defect).__name__)
            await self._commit([outcome.unwritable(outcomes[0])])


def _is_waited_for(settled: Settled) -> bool:
    return settled.batch_id == SINGLE and settled.state is not JobState.QUEUED
