"""How one job runs: the page that tells the story.

    attempt a step → decide, repeated until the job is answered, failed for good or put back.

Nothing here raises because of a provider, waits longer than a second, or knows SQL, RQ or a wire format.
"""

import asyncio
import logging
from dataclasses import replace

from understudy.models.failure import Failure
from understudy.models.jobs.execution import AttemptRecord, Settled, StartedJob
from understudy.models.jobs.wait_reasons import Waiting, put_back_for
from understudy.models.objects.attempt import attempt_summary
from understudy.models.routing.chain import Chain
from understudy.models.schemas.process import NoJudge
from understudy.models.state import JobState
from understudy.models.store import StoreDefect
from understudy.worker.job import outcome
from understudy.worker.job.attempt import StepAttempt
from understudy.worker.job.claimed_job import ClaimedJob
from understudy.worker.job.decide import IN_SLOT_S, decide
from understudy.worker.job.events import (
    Event,
    EveryKeyRefused,
    Fail,
    MoveOn,
    PutBack,
    Situation,
    TryAgain,
    Verdict,
)
from understudy.worker.job.hedge import Race
from understudy.worker.job.outcome import Answered
from understudy.worker.job.progress import Progress, begin_round, moved_to, with_attempt, with_judgement
from understudy.worker.job.provider_call import ProviderCall
from understudy.worker.job_resources import JobResources
from understudy.worker.outages import OUTAGE, OUTAGE_PAUSE_S, OUTAGES
from understudy.worker.redis_scripts import RedisUnavailable

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 0.02
"""So that a limiter whose clock is behind ours is not polled in a tight loop."""

REDIS_AWAY_S = 2.0
"""Seconds that a job rests in the ledger when the limits cannot be read."""

NO_LIMITS = put_back_for("the limits in Redis are unreachable")

NO_JUDGE_PAUSE_S = 10.0
"""An answer that could not be checked was paid for: it is not requested again at once."""

NO_JUDGE = put_back_for("JSON schemas could not be checked, because no process could be started")


class JobRun:
    """One claimed job in progress: its progress, and the calls made under this claim."""

    def __init__(self, job: StartedJob, chain: Chain, tools: JobResources) -> None:
        self.job = job
        self.chain = chain
        self.progress = Progress.from_dict(job.progress)
        self.attempts: list[AttemptRecord] = []
        self._of = ClaimedJob(job, chain, tools)
        self._race: Race | None = None
        self._failure: Failure | None = None  # of the last call
        self._stop: asyncio.Future[JobState] = asyncio.get_running_loop().create_future()

    def calls_in_flight(self) -> list[tuple[str, str]]:
        """(account, model) of each."""
        attempts = self._race.attempts if self._race else []
        return [attempt.call.in_flight for attempt in attempts if attempt.call.in_flight is not None]

    def stop(self, state: JobState) -> None:
        """Stop the calls in flight; the job becomes CANCELLED, or QUEUED again if the worker drains.

        A call that has already returned is kept, and `stop` takes effect after the bookkeeping.
        """
        if not self._stop.done():
            self._stop.set_result(state)

    async def run(self) -> Settled:
        """Run to an outcome. Raises only for a bug of ours, whatever providers and servers do."""
        try:
            return await self._to_outcome()
        except RedisUnavailable:
            return self._put_back(REDIS_AWAY_S, NO_LIMITS)
        except NoJudge as reason:
            log.warning("Job %s is put back: %s", self.job.id, reason)
            return self._put_back(NO_JUDGE_PAUSE_S, NO_JUDGE)
        except (*OUTAGES, StoreDefect) as outage:
            log.warning("Job %s is put back, a store is unavailable: %s", self.job.id, type(outage).__name__)
            return self._put_back(OUTAGE_PAUSE_S, OUTAGE)

    async def _to_outcome(self) -> Settled:
        waited_s = 0.0
        while not self._stop.done():
            if self._now() >= self.job.expires_at:
                return outcome.expired(self.job, self.attempts)
            match await self._attempt():
                case Answered() as answered:
                    primary = self._of.primary(self.progress)
                    return outcome.succeeded(self.job, self.chain, self.progress, primary, self.attempts, answered)
                case Fail():
                    return outcome.failed(self.job, self.chain, self.progress, self.attempts)
                case PutBack(until, waiting):
                    pause_s = max(until - self._now(), SHORTEST_PAUSE_S)
                case TryAgain(after_s, waiting):
                    pause_s = after_s
                case MoveOn() | None:
                    continue
            waited_s += pause_s
            if waited_s > IN_SLOT_S:
                return self._put_back(pause_s, waiting)
            await asyncio.wait([self._stop], timeout=pause_s)
        return outcome.stopped(self.job, self.attempts, self.progress, self._stop.result())

    async def _attempt(self) -> Answered | Verdict | None:
        """Attempt the current step, along with a later one if the chain hedges. None: stopped."""
        if self.chain.order != "chain" and not self.progress.order:
            self.progress = begin_round(self.progress, self._of.tools.choice.order(self.chain, self._of.needs))
        race = self._race = Race(self._of, self.progress, self._stop, self._keep)
        winner = await race.run()
        if race.hedge is not None:
            self._add_hedge(race.hedge)
        if winner is race.hedge:
            if isinstance(race.first.event, Event):
                self._decide(race.first.call, race.first.event)
            self.progress = replace(self.progress, step=winner.step)
        if winner.task.cancelled() and self._stop.done():
            return None
        came = winner.task.result()
        return came if isinstance(came, Answered) else self._decide(winner.call, came)

    def _add_hedge(self, hedge: StepAttempt) -> None:
        """What the parallel attempt says about its own step; it does not move the job."""
        if isinstance(hedge.event, Event):
            there = moved_to(self.progress, hedge.step)
            _, there = decide(self._situation(hedge.call), there, hedge.event)
            self.progress = with_judgement(self.progress, there, hedge.step)

    def _decide(self, call: ProviderCall, event: Event) -> Verdict:
        if isinstance(event, Failure):
            self._failure = event
        if isinstance(event, EveryKeyRefused):
            event = EveryKeyRefused(self._failure)
        verdict, self.progress = decide(self._situation(call), self.progress, event)
        return verdict

    def _situation(self, call: ProviderCall) -> Situation:
        key = call.record.key if call.record else ""
        tools, alone = self._of.tools, self._of.batch is None
        return Situation(self.chain, self.job.priority, self._now(), tools.rng, alone, call.account, key)

    def _keep(self, attempt: AttemptRecord) -> None:
        """Number the attempts in the order in which they returned."""
        attempt.no = self.job.attempts + len(self.attempts) + 1
        self.attempts.append(attempt)
        self.progress = with_attempt(self.progress, attempt_summary(attempt))

    def _put_back(self, pause_s: float, waiting: Waiting | None) -> Settled:
        return outcome.put_back(self.job, self.attempts, self.progress, self._now() + pause_s, waiting)

    def _now(self) -> float:
        return self._of.tools.clock()
