"""The claim loop: free slots become claimed jobs, each runs as a task, and its outcome is settled.

A slot becomes free only when its outcome is committed, so a slow ledger slows down claiming.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress

import redis.exceptions

from understudy.models.jobs.execution import Settled, StartedJob
from understudy.models.jobs.suspects import ALONE_AT, admit
from understudy.models.jobs.wait_reasons import GIVEN_BACK, Waiting, put_back_for
from understudy.models.logs import about, raised_at
from understudy.models.state import JobState, Priority
from understudy.models.store import Store, StoreOutage
from understudy.worker.concurrency import Coalescer, first_completed, unless
from understudy.worker.job import outcome
from understudy.worker.job.memory import LOOK_AGAIN_S, WAITS_FOR_ROOM, PromptRoom, place_in
from understudy.worker.job.progress import Progress
from understudy.worker.job.run import JobRun
from understudy.worker.job.settle import GATHER_S, Settler
from understudy.worker.job_resources import JobResources
from understudy.worker.outages import OUTAGE, OUTAGE_PAUSE_S, OUTAGES
from understudy.worker.rq.bridge import Bridge

log = logging.getLogger(__name__)

BULK = Priority.BULK.queue
CLAIM_AT_MOST = 100
START_AT_MOST = 400
FINISH_AT_MOST = 200

IDLE_WAIT_S = 5.0
FINISH_CLAIM_S = 1.0
"""A claim in progress when the worker is asked to stop is completed, unless Redis or the ledger hangs."""

LEASE_LOOK_S = 0.2

GIVE_BACK_S = 2.0
"""Reserved from the grace period for stopping calls and committing returned jobs."""

WAITS_ITS_TURN = put_back_for("workers died while running this job, so few such jobs run at a time")


class ClaimLoop:
    """Keeps up to `concurrency` jobs in flight until asked to stop."""

    def __init__(
        self,
        worker_id: str,
        bridge: Bridge,
        store: Store,
        tools: JobResources,
        concurrency: int,
        tell: Callable[[Sequence[str]], None] = lambda _ids: None,
        urgent_slots: int | None = None,
        lease_runs: Callable[[], bool] = lambda: True,
    ) -> None:
        """Claims nothing while its lease is not live (`lease_runs`): the ledger would start no job for it, and the
        tickets would be lost."""
        self.worker_id = worker_id
        self.bridge = bridge
        self.store = store
        self.tools = tools
        self.concurrency = concurrency
        self._lease_runs = lease_runs
        self._for_bulk = concurrency - min(
            kept_free(concurrency) if urgent_slots is None else urgent_slots, concurrency
        )
        self._bulk: set[asyncio.Task[None]] = set()
        self.runs: dict[str, JobRun] = {}
        self.done = self.put_back = 0  # settled jobs, and those of them that will run again
        self._tasks: set[asyncio.Task[None]] = set()
        self._slot_free = asyncio.Event()
        self._runs_alone = False  # a job that must run alone in this worker is running, or waits for the others to end
        self._prompts = PromptRoom()
        self._aboard: dict[str, int] = {}  # crash counts of the suspects held
        self._leaving = False
        self._away = False  # whether a store is available, when last checked
        self._doubtful: set[str] = set()
        self.settler = Settler(worker_id, store, tell)
        self._finisher = Coalescer(self._finish, max_items=FINISH_AT_MOST, max_delay_s=GATHER_S)

    async def run(self, stopping: asyncio.Event, refill: Callable[[], Awaitable[int]] | None = None) -> None:
        """Claim and run until `stopping` is set; in burst mode (`refill` stages more), until nothing is left."""
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                if self.settler.holds:
                    await unless(stop, self.settler.until_nothing_is_held())
                elif not self._lease_runs():
                    await unless(stop, asyncio.sleep(LEASE_LOOK_S))
                elif len(self._tasks) >= self.concurrency or self._runs_alone:
                    self._slot_free.clear()
                    await unless(stop, self._slot_free.wait())
                elif not await unless(stop, self._claim(), then_s=FINISH_CLAIM_S) and not stopping.is_set():
                    if refill is not None and not self._tasks and not await self._refilled(refill):
                        break
                    await unless(stop, self._wait_for_tickets() if refill is None else self._wait_in_a_burst())
        finally:
            stop.cancel()

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> list[Settled]:
        """Let running jobs finish for `grace_s` seconds (or until `hurry`), return the rest, and commit everything.

        Takes at most `grace_s`, or `GIVE_BACK_S` if longer. Returns the outcomes that an unavailable ledger did not
        accept by then.
        """
        hurried = asyncio.create_task(hurry.wait())
        with suppress(TimeoutError):
            await unless(hurried, asyncio.wait_for(self._all_done(), max(grace_s - GIVE_BACK_S, 0.0)))
        hurried.cancel()
        self._leaving = True
        self.stop_all()
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await self._all_done()
                await self.settler.close()
                await self._finisher.close()
        except TimeoutError:
            log.warning("Stopped with %d jobs whose outcome was not committed", len(self._aboard))
        return self.settler.uncommitted()

    async def _all_done(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def stop_all(self) -> None:
        for run in list(self.runs.values()):
            run.stop(JobState.QUEUED)

    def cancel(self, job_id: str) -> None:
        """The owner cancelled: stop the call in flight, if this worker runs it."""
        run = self.runs.get(job_id)
        if run is not None:
            run.stop(JobState.CANCELLED)

    def calls_in_flight(self) -> list[tuple[str, str]]:
        """(account, model) of each: what this worker's counts in Redis must equal."""
        return [call for run in self.runs.values() for call in run.calls_in_flight()]

    async def _refilled(self, refill: Callable[[], Awaitable[int]]) -> bool:
        """Whether there may be more to do."""
        try:
            return await refill() > 0
        except OUTAGES as outage:
            log.warning("Cannot determine whether there is more to do: %s", type(outage).__name__)
            await asyncio.sleep(OUTAGE_PAUSE_S)
            return True

    async def _wait_for_tickets(self) -> None:
        """Wait for tickets that fit a free slot. If bulk jobs use all of their slots, also wait for one of those to
        become free."""
        if self._bulk_room():
            await self._listen()
            return
        self._slot_free.clear()
        await first_completed(self._listen(BULK), self._slot_free.wait())

    async def _listen(self, *without: str) -> None:
        try:
            await self.bridge.wait(IDLE_WAIT_S, without)
        except redis.exceptions.RedisError:
            await asyncio.sleep(OUTAGE_PAUSE_S)

    def _bulk_room(self) -> int:
        return max(self._for_bulk - len(self._bulk), 0)

    async def _wait_in_a_burst(self) -> None:
        """Wait for tickets, or for the last job to end: then the burst may be over."""
        await first_completed(self._wait_for_tickets(), self._all_done())

    async def _claim(self) -> bool:
        """Turn tickets into running jobs. False if there was nothing to claim."""
        try:
            await self._return_uncertain_claims()
            claimed = await self._tickets(min(self.concurrency - len(self._tasks), START_AT_MOST))
        except OUTAGES as outage:
            if not self._away:
                log.warning("Nothing new is claimed until a store is back: %s", type(outage).__name__)
            self._away = True
            await self.bridge.repair(outage)
            return False
        self._away = False
        if not claimed:
            return False
        started = await self._start(claimed)
        aboard = await self._admitted_tickets(started)
        for job in aboard:
            task = self._spawn(self._work(job) if job.crashes < ALONE_AT else self._work_alone(job))
            if job.priority is Priority.BULK:
                self._bulk.add(task)
        for job_id in set(claimed) - {job.id for job in aboard}:
            # done, cancelled, paused or claimed elsewhere: the ledger refused
            self._spawn(self._finish_ticket(job_id))
        return True

    async def _tickets(self, wanted: int) -> list[str]:
        """Up to `wanted` tickets, in scripts that block Redis only briefly, to be started by one commit."""
        room = self._bulk_room()
        claimed = more = await self.bridge.claim(min(wanted, CLAIM_AT_MOST), {BULK: room})
        with suppress(redis.exceptions.RedisError):
            while len(more) == CLAIM_AT_MOST and len(claimed) < wanted:
                left = max(room - len(claimed), 0)
                more = await self.bridge.claim(min(wanted - len(claimed), CLAIM_AT_MOST), {BULK: left})
                claimed = claimed + more
        return claimed

    async def _start(self, claimed: list[str]) -> list[StartedJob]:
        try:
            return await self.store.claims.start(self.worker_id, claimed)
        except StoreOutage as error:
            log.warning("The ledger did not accept the claim of %d jobs: %s", len(claimed), error)
            self._doubtful.update(claimed)
            await asyncio.sleep(OUTAGE_PAUSE_S)
            return []

    async def _return_uncertain_claims(self) -> None:
        """A claim may have been committed although its reply was lost: the jobs would be held here without running."""
        if self._doubtful:
            await self.store.workers.give_back(self.worker_id, sorted(self._doubtful - self._aboard.keys()))
            self._doubtful.clear()

    async def _admitted_tickets(self, started: list[StartedJob]) -> list[StartedJob]:
        """Return to the ledger, before any can do harm, jobs that would be too many suspects or too large prompts
        for one worker."""
        admitted = admit([job.crashes for job in started], self._aboard.values(), self.concurrency)
        few = [job for job, fits in zip(started, admitted, strict=True) if fits]
        aboard = [job for job in few if self._prompts.take(job)]
        kept, admitted_ids = {job.id for job in aboard}, {job.id for job in few}
        later = self.tools.clock() + LOOK_AGAIN_S
        spare = [
            _put_back(job, WAITS_FOR_ROOM, later) if job.id in admitted_ids else _put_back(job, WAITS_ITS_TURN)
            for job in started
            if job.id not in kept
        ]
        await asyncio.gather(*(self.settler.add(each) for each in spare))
        self._aboard.update((job.id, job.crashes) for job in aboard)
        self._runs_alone = any(job.crashes >= ALONE_AT for job in aboard)
        return aboard

    async def _work_alone(self, job: StartedJob) -> None:
        """Run it once all others have ended; none is claimed in the meantime."""
        try:
            while others := self._tasks - {asyncio.current_task()}:
                await asyncio.wait(others)
            await self._work(job)
        finally:
            self._runs_alone = False

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._bulk.discard(task)
        self._slot_free.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("A job's task failed: %s", raised_at(task.exception()))

    async def _work(self, job: StartedJob) -> None:
        with about(job_id=job.id, batch_id=job.batch_id):
            await self._work_on(job)

    async def _work_on(self, job: StartedJob) -> None:
        try:
            with place_in(self.tools.answer_room):
                settled = await self._outcome_of(job)
                await self.settler.add(settled)
            await self.tools.fallback_quota.release(job)
        finally:
            self._aboard.pop(job.id, None)
            self._prompts.leave(job.id)
        self.done += 1
        self.put_back += settled.state is JobState.QUEUED
        await self._finish_ticket(job.id)

    async def _outcome_of(self, job: StartedJob) -> Settled:
        run = None
        try:
            chain = await self.store.get_chain(job.chain_id)
            if self._leaving:
                return _put_back(job, GIVEN_BACK)
            run = self.runs[job.id] = JobRun(await self.store.claims.with_prompt(job), chain, self.tools)
            return await run.run()
        except StoreOutage:
            return _put_back(job, OUTAGE)
        except Exception as error:
            log.error("Job %s hit an internal error: %s", job.id, raised_at(error))
            progress, attempts = (run.progress, run.attempts) if run else (Progress(), [])
            return outcome.defect(job, progress, attempts, type(error).__name__)
        finally:
            if run is not None and self.runs.get(job.id) is run:  # after a lost lease it may run here again
                del self.runs[job.id]

    async def _finish_ticket(self, job_id: str) -> None:
        try:
            await self._finisher.add(job_id)
        except redis.exceptions.RedisError as error:
            log.warning("Redis did not record that a ticket ended: %s", type(error).__name__)

    async def _finish(self, ids: Sequence[str]) -> list[None]:
        await self.bridge.finish(ids)
        return [None] * len(ids)


def kept_free(concurrency: int) -> int:
    """How many slots of a worker are reserved for urgent jobs if the settings do not say."""
    return max(1, concurrency // 20) if concurrency >= 5 else 0


def _put_back(job: StartedJob, waiting: Waiting, until: float = 0.0) -> Settled:
    """As it was claimed, due at once or at a later time."""
    return Settled(
        *(job.id, job.batch_id, job.claim_no, JobState.QUEUED),
        not_before=until,
        progress=job.progress,
        waiting=waiting,
        tenant=job.tenant,
    )
