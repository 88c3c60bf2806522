"""The claim loop: free slots become claimed jobs, each runs as a task, and what came of it is settled.

A slot is free again only when its outcome is committed, so that a slow ledger slows the claiming.
"""

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import redis.exceptions

from models.failure import Failure, FailureClass
from models.records import Settled, StartedJob
from models.state import JobState
from models.store import Store, StoreBusy, StoreUnavailable
from worker import decide, outcome
from worker.coalesce import Coalescer
from worker.rq_bridge import Bridge
from worker.run import JobRun, Tools

log = logging.getLogger(__name__)

CLAIM_AT_MOST = 100
FINISH_AT_MOST = 200
SETTLE_AT_MOST = 400
GATHER_S = 0.004
"""How long outcomes are gathered before they are committed together."""

IDLE_WAIT_S = 5.0
OUTAGE_PAUSE_S = 1.0
GIVE_BACK_S = 2.0
"""Kept of the grace period for stopping calls and committing what is given back."""

SUSPECT_CRASHES = 2
"""A job that was aboard this many crashes runs alone among its kind, so that a crash then counts only for it."""

WAITS_ITS_TURN = "one after the other: its workers died"


class ClaimLoop:
    """Keeps up to `concurrency` jobs in flight until told to stop."""

    def __init__(self, worker_id: str, bridge: Bridge, store: Store, tools: Tools, concurrency: int) -> None:
        self.worker_id = worker_id
        self.bridge = bridge
        self.store = store
        self.tools = tools
        self.concurrency = concurrency
        self.runs: dict[str, JobRun] = {}
        self.done = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._slot_free = asyncio.Event()
        self._suspects: dict[str, None] = {}
        self._suspect_aboard = False
        self._settler = Coalescer(self._settle, max_items=SETTLE_AT_MOST, max_delay_s=GATHER_S)
        self._finisher = Coalescer(self._finish, max_items=FINISH_AT_MOST, max_delay_s=GATHER_S)

    async def run(self, stopping: asyncio.Event, refill: Callable[[], Awaitable[int]] | None = None) -> None:
        """Claim and run until `stopping` is set; in a burst (`refill` stages more), until there is nothing left."""
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                if len(self._tasks) >= self.concurrency:
                    await self._first_of(stop, self._free_slot())
                elif not await self._claim():
                    if refill is not None and not self._tasks and not await refill():
                        break
                    await self._first_of(stop, self._wait_for_tickets())
        finally:
            stop.cancel()

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Let what runs finish for `grace_s` seconds (or until `hurry`); give the rest back, and commit it all."""
        if self._tasks:
            hurried = asyncio.create_task(hurry.wait())
            everything = asyncio.create_task(asyncio.wait(self._tasks))
            grace_s = max(grace_s - GIVE_BACK_S, 0.0)
            await asyncio.wait([hurried, everything], timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            self._suspects.clear()
            self.stop_all()
            await asyncio.wait([everything], timeout=GIVE_BACK_S)
            everything.cancel()
        await self._settler.close()
        await self._finisher.close()

    def stop_all(self) -> None:
        for run in list(self.runs.values()):
            run.stop(JobState.QUEUED)

    def cancel(self, job_id: str) -> None:
        """The owner cancelled: stop the call in flight, if it is ours."""
        run = self.runs.get(job_id)
        if run is not None:
            run.stop(JobState.CANCELLED)

    def calls_in_flight(self) -> Counter[tuple[str, str]]:
        """Calls under way by (account, model): what this worker's counts in Redis must say."""
        return Counter(run.calling for run in self.runs.values() if run.calling is not None)

    async def _first_of(self, stop: "asyncio.Task[bool]", coroutine: Coroutine[None, None, object]) -> None:
        """Wait for the coroutine, but not past the order to stop."""
        waiting = asyncio.create_task(coroutine)
        await asyncio.wait([stop, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    async def _free_slot(self) -> None:
        self._slot_free.clear()
        await self._slot_free.wait()

    async def _wait_for_tickets(self) -> None:
        try:
            await self.bridge.wait(IDLE_WAIT_S)
        except redis.exceptions.RedisError:
            await asyncio.sleep(OUTAGE_PAUSE_S)

    async def _claim(self) -> bool:
        """Turn tickets into running jobs. False when there was nothing to claim."""
        try:
            claimed = await self.bridge.claim(min(self.concurrency - len(self._tasks), CLAIM_AT_MOST))
        except redis.exceptions.RedisError as error:
            log.warning("Redis is unreachable, nothing new is claimed: %s", type(error).__name__)
            return False
        if not claimed:
            return False
        try:
            started = await self.store.start(self.worker_id, claimed)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("The ledger did not take the claim of %d jobs: %s", len(claimed), error)
            started = []
            await asyncio.sleep(OUTAGE_PAUSE_S)
        aboard = await self._with_one_suspect(started)
        for job in aboard:
            self._spawn(self._work(job) if job.crashes < SUSPECT_CRASHES else self._work_suspects(job))
        for job_id in set(claimed) - {job.id for job in aboard}:
            # done, cancelled, paused or claimed elsewhere: the ledger said no
            self._spawn(self._finish_ticket(job_id))
        return True

    async def _with_one_suspect(self, started: list[StartedJob]) -> list[StartedJob]:
        """Leave out all suspects but one: a crash is charged to every suspect that a dead worker held.

        The others go back to the ledger, before the one may do harm, and wait here for their turn to be claimed.
        """
        suspects = [job for job in started if job.crashes >= SUSPECT_CRASHES]
        spare = suspects if self._suspect_aboard else suspects[1:]
        self._suspect_aboard = self._suspect_aboard or bool(suspects)
        self._suspects.update((job.id, None) for job in spare)
        await asyncio.gather(*(self._settler.add(_waiting_its_turn(job)) for job in spare))
        return [job for job in started if job not in spare]

    async def _work_suspects(self, job: StartedJob) -> None:
        """This one, then those that wait, each claimed only when its turn comes."""
        try:
            await self._work(job)
            while self._suspects:
                job_id = next(iter(self._suspects))
                del self._suspects[job_id]
                for started in await self.store.start(self.worker_id, [job_id]):
                    await self._work(started)
        except (StoreBusy, StoreUnavailable) as error:
            log.warning("The ledger did not take a claim: %s", error)
        finally:
            self._suspect_aboard = False

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slot_free.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("A job's task failed", exc_info=task.exception())

    async def _work(self, job: StartedJob) -> None:
        settled = await self._outcome_of(job)
        await self._settler.add(settled)
        self.done += 1
        await self._finish_ticket(job.id)

    async def _outcome_of(self, job: StartedJob) -> Settled:
        chain = await self.store.get_chain(job.chain_id)
        run = self.runs[job.id] = JobRun(job, chain, self.tools)
        try:
            return await run.run()
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            log.error("Job %s met a defect of ours: %s\n%s", job.id, type(error).__name__, where)
            return _defect(run, error)
        finally:
            del self.runs[job.id]

    async def _settle(self, outcomes: Sequence[Settled]) -> list[None]:
        """Commit; an answer that was paid for is held for as long as the ledger is away."""
        while True:
            try:
                await self.store.settle(self.worker_id, outcomes)
                return [None] * len(outcomes)
            except (StoreBusy, StoreUnavailable) as error:
                log.warning("The ledger did not take %d outcomes, they are held: %s", len(outcomes), error)
                await asyncio.sleep(OUTAGE_PAUSE_S)

    async def _finish_ticket(self, job_id: str) -> None:
        try:
            await self._finisher.add(job_id)
        except redis.exceptions.RedisError as error:
            log.warning("Redis was not told that a ticket ended: %s", type(error).__name__)

    async def _finish(self, ids: Sequence[str]) -> list[None]:
        await self.bridge.finish(ids)
        return [None] * len(ids)


def _waiting_its_turn(job: StartedJob) -> Settled:
    progress, reason = job.progress, WAITS_ITS_TURN
    return Settled(job.id, job.batch_id, job.claim_no, JobState.QUEUED, progress=progress, wait_reason=reason)


def _defect(run: JobRun, error: Exception) -> Settled:
    failure = Failure(FailureClass.UNKNOWN, f"internal error: {type(error).__name__}")
    _, progress = decide.after_failure(run.situation(), run.progress, failure)
    return outcome.failed(run.job, progress, run.attempts)
