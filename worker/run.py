"""How one job runs: the page that tells the story.

    reserve → call → classify → decide, over and over, until the job is answered, failed for good or put back.

Nothing here raises for a provider's sake, waits longer than a second, or knows SQL, RQ or a wire format.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any, TypeVar

import orjson

from models.chain import EMBEDDINGS, Chain, Step
from models.failure import Failure, FailureClass
from models.ids import new_id
from models.needs import Needs, needs_of
from models.pricing import Pricing
from models.records import SINGLE, AttemptRecord, Settled, StartedJob
from models.state import JobState, Priority
from models.tokens import most_output_tokens
from worker import decide, outcome
from worker.acceptance import unacceptable
from worker.budgets import Budgets, Short
from worker.choice import Choice
from worker.costs import Costs
from worker.decide import IN_SLOT_S, Fail, PutBack, Situation, TryAgain, Verdict
from worker.estimates import Estimates, keeps_max_tokens
from worker.exchange import NOTHING_USED, Exchange, Stopwatch, exchange
from worker.fleet import Fleet, Target
from worker.limits import BULK, URGENT, Deployment, Grant, Limiter, LimitsUnavailable, Refusal
from worker.outcome import Answered
from worker.places import NotYet, Places
from worker.progress import Progress, begin_round, in_order
from worker.providers.base import Answer, Call, CannotExpress, Usage, WireRequest
from worker.providers.client import ProviderClient
from worker.tails import Tails

log = logging.getLogger(__name__)
T = TypeVar("T")

STOPPED_IN_FLIGHT = Failure(FailureClass.CANCELLED, "stopped while the call was in flight", possibly_billed=True)

TELL_REDIS_S = 1.0
SHORTEST_PAUSE_S = 0.02
"""So that a limiter whose clock is behind ours is not asked in a tight loop."""

REDIS_AWAY_S = 2.0
"""How long a job rests in the ledger when the limits cannot be read."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run needs of the world, built once per worker."""

    fleet: Fleet
    limiter: Limiter
    client: ProviderClient
    pricing: Pricing
    costs: Costs
    budgets: Budgets
    choice: Choice
    places: Places
    tails: Tails
    clock: Callable[[], float]
    rng: Random
    estimates: Estimates = field(default_factory=Estimates)


class JobRun:
    """One claimed job under way: its progress, and the calls made in this claim."""

    def __init__(self, job: StartedJob, chain: Chain, tools: Tools) -> None:
        self.job = job
        self.chain = chain
        self.tools = tools
        self.body: Mapping[str, Any] = orjson.loads(job.body)
        self.progress = Progress.from_dict(job.progress)
        self.attempts: list[AttemptRecord] = []
        self.calling: tuple[str, str] | None = None  # (account, model) while a call is in flight
        self.watch: Stopwatch | None = None  # of the call in flight, once it was sent
        self.in_hand = False  # the latest call has come back: it is too late to cut it short
        self.cut_as = STOPPED_IN_FLIGHT
        self._stop_as: JobState | None = None
        self._task: asyncio.Task[Any] | None = None

    @property
    def step(self) -> Step:
        return self.chain.steps[self.progress.step]

    @cached_property
    def needs(self) -> Needs:
        return needs_of(self.body, self.chain.endpoint, self.job.tokens, most_output_tokens(self.body))

    @property
    def first_step(self) -> int:
        """The first of this round, by index, that may serve this job: to be answered by a later one is a fallback."""
        may_serve = (
            step
            for step in in_order(self.chain, self.progress)
            if self.tools.choice.why_not(self.chain, self.chain.steps[step], self.needs) is None
        )
        return next(may_serve, self.progress.step)

    def situation(self) -> Situation:
        return Situation(self.chain, self.job.priority, self.tools.clock(), self.tools.rng)

    def calls_in_flight(self) -> list[tuple[str, str]]:
        """(account, model) of each."""
        return [] if self.calling is None else [self.calling]

    def stop(self, state: JobState) -> None:
        """Stop the call in flight; the job becomes CANCELLED, or QUEUED again when the worker drains.

        An answer that is in hand is kept.
        """
        if self._stop_as is None:
            self._stop_as = state
            if self._task is not None:
                self._task.cancel()

    async def run(self) -> Settled:
        """Run to an outcome. Raises only for a defect of ours: providers and Redis may do what they like."""
        try:
            return await self._to_outcome()
        except LimitsUnavailable:
            until = self.tools.clock() + REDIS_AWAY_S
            return self._put_back(until, "the limits in Redis are unreachable")

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
                    return outcome.failed(self.job, self.progress, self.attempts)
                case PutBack(until, reason):
                    pause_s = max(until - self.tools.clock(), SHORTEST_PAUSE_S)
                case TryAgain(after_s):
                    pause_s, reason = after_s, f"retry at {self.step} after a failure"
                case _:
                    continue
            waited_s += pause_s
            if waited_s > IN_SLOT_S:
                return self._put_back(self.tools.clock() + pause_s, reason)
            await self._unless_stopped(asyncio.sleep(pause_s))
        return outcome.stopped(self.job, self.attempts, self.progress, self._stop_as)

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
        """None when `stop` ended it."""
        self._task = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if self._stop_as is None or self._task is None:
                raise
            self._task.uncancel()
            return None
        finally:
            self._task = None

    def _put_back(self, until: float, reason: str) -> Settled:
        return outcome.put_back(self.job, self.attempts, self.progress, until, reason)

    async def _try_step(self) -> Answered | Verdict:
        """One call, if it may be made; what budgets cover is held before it and settled after it."""
        if self.chain.order != "chain" and not self.progress.order:
            self.progress = begin_round(self.progress, self.tools.choice.order(self.chain, self.needs))
        unfit = self.tools.choice.why_not(self.chain, self.step, self.needs)
        if unfit is not None:
            return self._follow(decide.after_unfit(self.situation(), self.progress, unfit))
        budgets, step = self.tools.budgets, self.step
        subjects = budgets.covering(self.job, step.provider)
        if not subjects:
            return await self._reserve_and_call()
        held = await budgets.hold(subjects, self.expected_usd())
        if isinstance(held, Short):
            alone = self.job.batch_id == SINGLE
            return self._follow(decide.after_short(self.situation(), self.progress, held, alone=alone))
        made, asked = len(self.attempts), self.progress.step
        try:
            return await self._reserve_and_call()
        finally:  # calls of other steps that were made beside it have settled themselves
            cost_usd = sum(call.cost_usd for call in self.attempts[made:] if call.step == asked)
            await if_redis_listens(budgets.settle(held, cost_usd))

    def expected_usd(self) -> float:
        """What a call at this step is expected to cost; 0 where no price is known."""
        return self.tools.costs.of_call(self.chain, self.step, self._batch, self.job.tokens, self.body)

    async def _reserve_and_call(self) -> Answered | Verdict:
        """One reservation and, when it is granted, one call."""
        if (otherwise := await self._without_a_place()) is not None:
            return otherwise
        ways = await self.tools.fleet.ways(self.step)
        if not ways:
            return self._follow(self._without_a_way())
        first, target = next(iter(ways.items()))
        call = Call(target.dialect, self.step.model, {**self.body, **self.step.params}, self.chain.endpoint)
        try:
            request = target.adapter.request(call, target.endpoint)
        except CannotExpress as misfit:
            return self._follow(decide.after_misfit(self.situation(), self.progress, f"{self.step}: {misfit}"))
        reserved = await self.tools.limiter.reserve(
            list(ways), self._tokens_to_reserve(call), BULK if self.job.priority is Priority.BULK else URGENT
        )
        if isinstance(reserved, Refusal):
            return self._follow(decide.after_refusal(self.situation(), self.progress, reserved))
        if reserved.candidate != first:
            target = ways[reserved.candidate]
            request = target.adapter.request(call, target.endpoint)
        return await self._call(target, call, request, reserved)

    async def _without_a_place(self) -> Verdict | None:
        """None: the step may be asked. Only so many jobs of a batch may be answered by a later one."""
        share = self.chain.max_fallback_share
        if share is None or self.job.batch_id == SINGLE or self.progress.step == self.first_step:
            return None
        try:
            if await self.tools.places.take(self.job, share):
                return None
        except NotYet as not_yet:
            return PutBack(self.tools.clock() + not_yet.in_s, not_yet.reason)
        return self._follow(decide.without_a_place(self.situation(), self.progress))

    def _without_a_way(self) -> tuple[Verdict, Progress]:
        absence = self.tools.fleet.why_none(self.step)
        if absence.mendable:
            return decide.after_block(self.situation(), self.progress, absence.cls, absence.text)
        return decide.after_misfit(self.situation(), self.progress, absence.text, absence.cls)

    async def _call(self, target: Target, call: Call, request: WireRequest, grant: Grant) -> Answered | Verdict:
        deployment = grant.candidate.deployment
        self.in_hand, self.calling = False, (deployment.account, deployment.model)
        try:
            if not await self._may_start(grant):
                return TryAgain()
            watch = self.watch = Stopwatch(self.tools.clock)
            number = self.tools.fleet.begun(deployment)
            try:
                came = await exchange(self.tools.client, target, call, request, self.tools.clock)
            except asyncio.CancelledError:
                self._record(deployment, watch, self.cut_as)
                await if_redis_listens(self.tools.limiter.release(grant, None))
                raise
        finally:
            self.calling = self.watch = None
        # There may be an answer to keep: who stops the job now waits for the few words to Redis.
        self.in_hand, self._task = True, None
        reply = await self._unless_unacceptable(call, came.reply)
        cost_usd = self._cost_usd(target, deployment, came.usage)
        if isinstance(reply, Failure):
            self._record(deployment, watch, reply, came.usage, cost_usd or 0.0)
            verdict = self._follow(decide.after_failure(self.situation(), self.progress, reply))
            if isinstance(came.reply, Failure):
                await self._tell_of_failure(target, grant, number, came)
            else:
                await self._tell_of_answer(target, grant, number, came)
            return verdict
        self._record(deployment, watch, None, came.usage, cost_usd or 0.0)
        answered = Answered(reply, deployment, request.dropped, self.attempts[-1].latency_ms, cost_usd)
        await self._tell_of_answer(target, grant, number, came)
        return answered

    async def _unless_unacceptable(self, call: Call, reply: Answer | Failure) -> Answer | Failure:
        """The failure that the chain takes an answer for which is not what it must be."""
        if isinstance(reply, Failure) or not self.chain.accept:
            return reply
        asked = self.chain.accept, call.endpoint, call.body, reply.completion
        if "json_schema" in self.chain.accept:  # a large answer against a large schema must not keep other jobs waiting
            return await asyncio.to_thread(unacceptable, *asked) or reply
        return unacceptable(*asked) or reply

    async def _may_start(self, grant: Grant) -> bool:
        """Wait for the start. False when others found out meanwhile that the deployment must rest."""
        try:
            await asyncio.sleep(grant.wait_s)
            holds = not grant.wait_s or await self.tools.limiter.still_holds(grant)
        except asyncio.CancelledError:
            await if_redis_listens(self.tools.limiter.cancel(grant))
            raise
        if not holds:
            await if_redis_listens(self.tools.limiter.cancel(grant))
        return holds

    async def _tell_of_failure(self, target: Target, grant: Grant, number: int, came: Exchange) -> None:
        failure, limiter = came.reply, self.tools.limiter
        assert isinstance(failure, Failure)
        await self._tell_of_limits(grant, came)
        refused = failure.cls is FailureClass.RATE_LIMIT
        await if_redis_listens(limiter.release(grant, came.tokens, refused=refused))
        await if_redis_listens(self.tools.fleet.learn(grant, target, failure, limiter, number))

    async def _tell_of_answer(self, target: Target, grant: Grant, number: int, came: Exchange) -> None:
        self.tools.fleet.answered(grant.candidate.deployment, target, number)
        await self._tell_of_limits(grant, came)
        model = (grant.candidate.deployment.provider, grant.candidate.deployment.model)
        if self.attempts[-1].cls is None:
            self.tools.choice.latencies.answered(*model, self.attempts[-1].latency_ms)
        if came.usage != NOTHING_USED:
            self.tools.estimates.learn(model, self._batch, self.job.tokens, came.usage)
        used = None if keeps_max_tokens(target.dialect) else came.tokens
        await if_redis_listens(self.tools.limiter.release(grant, used))
        await if_redis_listens(self.tools.limiter.answered(grant))

    async def _tell_of_limits(self, grant: Grant, came: Exchange) -> None:
        if came.told is not None:
            await if_redis_listens(self.tools.limiter.told(grant.candidate.deployment, came.told))

    def _cost_usd(self, target: Target, deployment: Deployment, usage: Usage) -> float | None:
        if usage == NOTHING_USED:
            return None
        return self.tools.pricing.cost_usd(deployment.provider, target.dialect, deployment.model, usage)

    def _record(
        self,
        deployment: Deployment,
        watch: Stopwatch,
        failure: Failure | None,
        usage: Usage = NOTHING_USED,
        cost_usd: float = 0.0,
    ) -> None:
        attempt = AttemptRecord(
            id=new_id("att"),
            no=self.job.attempts + len(self.attempts) + 1,
            step=self.progress.step,
            provider=deployment.provider,
            model=deployment.model,
            key=deployment.key,
            cls=failure.cls if failure else None,
            status=failure.status if failure else 200,
            latency_ms=watch.elapsed_ms(),
            started_at=watch.started_at,
            message=failure.message if failure else None,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=cost_usd,
            possibly_billed=failure is not None and failure.possibly_billed,
        )
        self.attempts.append(attempt)
        self.progress = replace(self.progress, attempts=(*self.progress.attempts, outcome.brief(attempt)))

    def _tokens_to_reserve(self, call: Call) -> int:
        estimates, model = self.tools.estimates, (self.step.provider, self.step.model)
        if call.endpoint == EMBEDDINGS:
            return estimates.input_tokens(model, self.job.tokens)
        most = most_output_tokens(call.body)
        return estimates.tokens_to_reserve(model, call.dialect, self._batch, self.job.tokens, most)

    @property
    def _batch(self) -> str | None:
        """The batch whose answers are likely to be alike; single jobs have nothing in common."""
        return None if self.job.batch_id == SINGLE else self.job.batch_id

    def _follow(self, decided: tuple[Verdict, Progress]) -> Verdict:
        verdict, self.progress = decided
        return verdict


async def if_redis_listens(call: Awaitable[None]) -> None:
    """What came of a call is kept whether or not Redis can be told about it at once; leases mend the counts."""
    try:
        async with asyncio.timeout(TELL_REDIS_S):
            await call
    except (LimitsUnavailable, TimeoutError):
        log.warning("Redis does not answer: limits were not updated after a call")
