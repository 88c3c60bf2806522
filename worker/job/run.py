"""How one job runs: the page that tells the story.

    reserve → call → classify → decide, repeated until the job is answered, failed for good or put back.

Nothing here raises because of a provider, waits longer than a second, or knows SQL, RQ or a wire format.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import orjson

from understudy.models.failure import Failure
from understudy.models.jobs.wait_reasons import put_back_for
from understudy.models.objects.attempt import attempt_summary
from understudy.models.records import SINGLE, AttemptRecord, Settled, StartedJob, Waiting
from understudy.models.request.needs import Needs, needs_of
from understudy.models.request.tokens import most_output_tokens
from understudy.models.routing.chain import Chain, Step
from understudy.models.schemas.process import NoJudge
from understudy.models.state import JobState
from understudy.models.store import StoreDefect
from understudy.worker.budgets.fallback_quota import QuotaUsedUp
from understudy.worker.budgets.reservations import InsufficientBudget
from understudy.worker.job import decide, outcome
from understudy.worker.job.decide import IN_SLOT_S, Fail, PutBack, Situation, TryAgain, Verdict
from understudy.worker.job.outcome import Answered
from understudy.worker.job.progress import Progress, begin_round, in_order, is_last_resort, with_attempt
from understudy.worker.job.provider_call import ProviderCall, TurnedAway, if_redis_listens
from understudy.worker.job_resources import JobResources
from understudy.worker.limits.credentials import Absence
from understudy.worker.limits.limiter import LimitsUnavailable, Refusal
from understudy.worker.outages import NO_JUDGE, NO_JUDGE_PAUSE_S, OUTAGE, OUTAGE_PAUSE_S, OUTAGES
from understudy.worker.providers.base import CannotExpress

log = logging.getLogger(__name__)

T = TypeVar("T")

SHORTEST_PAUSE_S = 0.02
"""So that a limiter whose clock is behind ours is not polled in a tight loop."""

REDIS_AWAY_S = 2.0
"""Seconds that a job rests in the ledger when the limits cannot be read."""

NO_LIMITS = put_back_for("the limits in Redis are unreachable")


class JobRun:
    """One claimed job in progress: its progress, and the calls made under this claim."""

    may_wait = True
    """Its calls may start a little after they were granted."""

    def __init__(self, job: StartedJob, chain: Chain, tools: JobResources) -> None:
        self.job = job
        self.chain = chain
        self.tools = tools
        self.body: Mapping[str, Any] = orjson.loads(job.body)
        self.progress = Progress.from_dict(job.progress)
        self.attempts: list[AttemptRecord] = []
        self.call: ProviderCall | None = None  # of the current step
        self._refusal: Failure | None = None  # the last failure of a call
        self._stop_as: JobState | None = None
        self._task: asyncio.Task[Any] | None = None  # what `stop` may cancel

    @property
    def step(self) -> Step:
        return self.chain.steps[self.progress.step]

    @cached_property
    def needs(self) -> Needs:
        return needs_of(self.body, self.chain.endpoint, self.job.tokens, most_output_tokens(self.body))

    @property
    def first_step(self) -> int:
        """The index of the first step of this round that may serve this job: an answer by a later one is a fallback."""
        may_serve = (
            step
            for step in in_order(self.chain, self.progress)
            if self.tools.choice.why_not(self.chain, self.chain.steps[step], self.needs) is None
        )
        return next(may_serve, self.progress.step)

    def situation(self, account: str | None = None) -> Situation:
        return Situation(self.chain, self.job.priority, self.tools.clock(), self.tools.rng, account)

    @property
    def in_hand(self) -> bool:
        """The call has returned: there may be an answer to keep."""
        return self.call is not None and self.call.in_hand

    def calls_in_flight(self) -> list[tuple[str, str]]:
        """(account, model) of each."""
        under_way = None if self.call is None else self.call.in_flight
        return [] if under_way is None else [under_way]

    def stop(self, state: JobState) -> None:
        """Stop the call in flight; the job becomes CANCELLED, or QUEUED again if the worker drains.

        If the call has already returned, its result is kept, and `stop` takes effect after the bookkeeping.
        """
        if self._stop_as is None:
            self._stop_as = state
            if self._task is not None and not self.in_hand:
                self._task.cancel()

    async def run(self) -> Settled:
        """Run to an outcome. Raises only for a bug of ours, whatever providers and servers do."""
        try:
            return await self._to_outcome()
        except LimitsUnavailable:
            until = self.tools.clock() + REDIS_AWAY_S
            return self._put_back(until, NO_LIMITS)
        except NoJudge as reason:
            log.warning("Job %s is put back: %s", self.job.id, reason)
            return self._put_back(self.tools.clock() + NO_JUDGE_PAUSE_S, NO_JUDGE)
        except (*OUTAGES, StoreDefect) as outage:
            log.warning("Job %s is put back, a store is unavailable: %s", self.job.id, type(outage).__name__)
            return self._put_back(self.tools.clock() + OUTAGE_PAUSE_S, OUTAGE)

    async def _to_outcome(self) -> Settled:
        waited_s = 0.0
        while self._stop_as is None:
            if self.tools.clock() >= self.job.expires_at:
                return outcome.expired(self.job, self.attempts)
            result = await self._unless_stopped(self._try_step())
            match result:
                case Answered():
                    return outcome.succeeded(
                        self.job, self.chain, self.progress, self.first_step, self.attempts, result
                    )
                case Fail():
                    return outcome.failed(self.job, self.chain, self.progress, self.attempts)
                case PutBack(until, waiting):
                    pause_s = max(until - self.tools.clock(), SHORTEST_PAUSE_S)
                case TryAgain(after_s, waiting):
                    pause_s = after_s
                case _:
                    continue
            waited_s += pause_s
            if waited_s > IN_SLOT_S:
                return self._put_back(self.tools.clock() + pause_s, waiting)
            await self._unless_stopped(asyncio.sleep(pause_s))
        return outcome.stopped(self.job, self.attempts, self.progress, self._stop_as)

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
        """None if `stop` ended it."""
        self._task = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if self._stop_as is None or self._task is None or self.in_hand:
                raise
            self._task.uncancel()
            return None
        finally:
            self._task = self.call = None

    def _put_back(self, until: float, waiting: Waiting | None) -> Settled:
        return outcome.put_back(self.job, self.attempts, self.progress, until, waiting)

    async def _try_step(self) -> Answered | Verdict:
        """One call, if allowed; budgets are reserved before it and settled after it."""
        if self.chain.order != "chain" and not self.progress.order:
            self.progress = begin_round(self.progress, self.tools.choice.order(self.chain, self.needs))
        unfit = self.tools.choice.why_not(self.chain, self.step, self.needs)
        if unfit is not None:
            return self._follow(decide.after_unfit(self.situation(), self.progress, unfit))
        call = self.call = ProviderCall(
            *(self.job, self.chain, self.progress.step, self.body, self.tools),
            may_wait=self.may_wait,
            refused_by=self.progress.refused_by,
            insist=is_last_resort(self.chain, self.progress),
        )
        budgets = self.tools.budgets
        subjects = budgets.covering(self.job, self.step.provider)
        if not subjects:
            return await self._make(call)
        held = await budgets.reserve(subjects, call.expected_usd())
        if isinstance(held, InsufficientBudget):
            alone = self.job.batch_id == SINGLE
            return self._follow(decide.after_short(self.situation(), self.progress, held, alone=alone))
        try:
            return await self._make(call)
        finally:
            await if_redis_listens(budgets.settle(held, call.cost_usd))

    async def _make(self, call: ProviderCall) -> Answered | Verdict:
        """Make the call, record it, decide what follows, and publish its effects."""
        if (otherwise := await self._without_a_place()) is not None:
            return otherwise
        try:
            came = await call.make()
        except CannotExpress as misfit:
            return self._follow(decide.after_misfit(self.situation(), self.progress, f"{self.step}: {misfit}"))
        finally:
            if call.record is not None:
                self._keep(call.record)
        result: Answered | Verdict = came if isinstance(came, Answered) else self._follow(self._judged(call, came))
        await call.tell()
        return result

    async def _without_a_place(self) -> Verdict | None:
        """None: the step may be tried. Only a share of a batch's jobs may be answered by a later step."""
        share = self.chain.max_fallback_share
        if share is None or self.job.batch_id == SINGLE or self.progress.step == self.first_step:
            return None
        try:
            if await self.tools.places.take(self.job, share):
                return None
        except QuotaUsedUp as not_yet:
            return PutBack(self.tools.clock() + not_yet.in_s, put_back_for(not_yet.reason))
        return self._follow(decide.without_a_place(self.situation(), self.progress, self.first_step))

    def _judged(
        self, call: ProviderCall, came: Failure | Refusal | Absence | TurnedAway | None
    ) -> tuple[Verdict, Progress]:
        """What follows from a call that did not answer, or was not made."""
        at, progress = self.situation(call.account), self.progress
        match came:
            case Failure():
                self._refusal = came
                return decide.after_failure(at, progress, came, call.record.key if call.record else "")
            case TurnedAway():
                return decide.after_every_key_refused(at, progress, self._refusal)
            case Refusal():
                return decide.after_refusal(at, progress, came)
            case Absence() if came.mendable:
                return decide.after_block(at, progress, came.cls, came.text)
            case Absence() if came.until is not None:
                return decide.after_block(at, progress, came.cls, came.text, came.until)
            case Absence():
                return decide.after_misfit(at, progress, came.text, came.cls)
            case None:
                return TryAgain(), progress

    def _keep(self, attempt: AttemptRecord) -> None:
        """Number the attempts in the order in which they returned."""
        attempt.no = self.job.attempts + len(self.attempts) + 1
        self.attempts.append(attempt)
        self.progress = with_attempt(self.progress, attempt_summary(attempt))

    def _follow(self, decided: tuple[Verdict, Progress]) -> Verdict:
        verdict, self.progress = decided
        return verdict
