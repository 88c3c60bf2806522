"""The canary: the first few jobs of a batch run alone, and if they all fail alike the rest does not follow.

A batch is watched until one of its jobs succeeds. Until then only a few of its jobs are staged or running. If the first
of them to end all failed with one failure class, the batch pauses with that reason; if they failed differently, nothing
is known and it continues. Later, too, a batch pauses when its latest calls were all bad requests.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from understudy.models.config.settings import BatchSettings
from understudy.models.failure import FailureClass
from understudy.models.jobs.pause_reasons import first_jobs_failed, last_calls_failed
from understudy.models.logs import about
from understudy.models.store import Store
from understudy.models.store.work.canary import Watched
from understudy.models.store.work.planning import Lane, OpenLane

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Bad requests are rejected at once. If nothing has failed for this long the model is merely slow: the rest may
start."""


class Canary:
    """Remembers since when the first jobs of a batch have been running, and from which call on a batch is judged."""

    def __init__(self, store: Store, settings: BatchSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._lines = settings.canary_lines
        self._bad_requests = settings.bad_requests_in_a_row
        self._monotonic = monotonic
        self._began: dict[str, float] = {}
        self._judged_from: dict[str, str] = {}

    async def rooms(self) -> dict[str, int]:
        """How many jobs of each watched batch may be staged in addition to those running. Judges batches whose first
        jobs have ended."""
        if not self._lines:
            return {}
        watched = await self._store.canary.watched()
        now = self._monotonic()
        self._began = {each.id: self._began.get(each.id, now) for each in watched if each.running or each.failed}
        rooms: dict[str, int] = {}
        passed: list[str] = []
        for each in watched:
            if each.succeeded or each.total <= self._lines:
                passed.append(each.id)
            elif each.failed < self._lines:
                rooms[each.id] = max(self._lines - each.failed - each.running, 0)
            elif await self._has_died(each):
                rooms[each.id] = 0
            else:
                passed.append(each.id)
            if self._is_merely_slow(each, now):
                rooms.pop(each.id, None)
        if passed:
            await self._store.canary.stop_watching(passed)
        return rooms

    async def look_back(self) -> None:
        """Pause batches whose latest calls were all bad requests, since they were resumed or since this worker
        became leader."""
        if not self._bad_requests:
            return
        newest = await self._store.canary.newest_calls()
        self._judged_from = {
            batch_id: self._judged_from.get(batch_id, call_id) for batch_id, (call_id, _) in newest.items()
        }
        for batch_id, (_, failure) in newest.items():
            if failure == FailureClass.BAD_REQUEST:
                await self._hold_if_hopeless(batch_id)

    async def _has_died(self, each: Watched) -> bool:
        same = await self._store.canary.first_failure(each.id, self._lines)
        if same is None:
            return False
        await self._reserve(each.id, first_jobs_failed(self._lines, same.cls, same.step), canary=True)
        return True

    async def _hold_if_hopeless(self, batch_id: str) -> None:
        same = await self._store.canary.last_failure(batch_id, self._bad_requests, self._judged_from[batch_id])
        if same is not None and same.step is not None:
            await self._reserve(batch_id, last_calls_failed(self._bad_requests, same.cls, same.step), canary=False)

    async def _reserve(self, batch_id: str, reason: str, *, canary: bool) -> None:
        if await self._store.canary.hold_failing(batch_id, reason, canary=canary):
            self._judged_from.pop(batch_id, None)
            with about(batch_id=batch_id):
                log.warning("Batch %s is paused: %s", batch_id, reason)

    def _is_merely_slow(self, each: Watched, now: float) -> bool:
        return not each.failed and now - self._began.get(each.id, now) > PATIENCE_S


def shares_of(
    lanes: Sequence[OpenLane], rooms: Mapping[str, int], staged: Mapping[str, int], queued: Mapping[Lane, int]
) -> dict[Lane, int]:
    """How many more jobs of each lane of a watched batch may be staged: its chains take turns until its allowance is
    used.

    `staged` are a batch's tickets that are waiting or were just taken, `queued` the waiting ones of a lane.
    """
    left = {batch_id: max(room - staged.get(batch_id, 0), 0) for batch_id, room in rooms.items()}
    ready = {each.lane: each.ready - queued.get(each.lane, 0) for each in lanes if each.lane.batch_id in left}
    shares = dict.fromkeys(ready, 0)
    waiting = list(ready)
    while waiting := [lane for lane in waiting if left[lane.batch_id] and shares[lane] < ready[lane]]:
        for lane in waiting:
            if left[lane.batch_id]:
                left[lane.batch_id] -= 1
                shares[lane] += 1
    return shares
