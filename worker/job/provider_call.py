"""One call of one step, from its reservation until its effects are published:

    reserve → wait for the start → exchange → record, and then update Redis, the credential pool and the estimates

It is made for a job, but does not know the job's progress: what follows from it is decided by the run.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from understudy.models.failure import Failure, FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.execution import AttemptRecord
from understudy.models.request.tokens import most_output_tokens
from understudy.models.routing.chain import EMBEDDINGS
from understudy.models.schemas.process import NoJudge
from understudy.models.state import Priority
from understudy.worker.job.acceptance import unacceptable
from understudy.worker.job.claimed_job import ClaimedJob
from understudy.worker.job.events import EveryKeyRefused, NotStarted
from understudy.worker.job.exchange import NOTHING_USED, Exchange, Stopwatch, exchange
from understudy.worker.job.outcome import Answered
from understudy.worker.limits.credentials import Absence, Target
from understudy.worker.limits.estimates import keeps_max_tokens
from understudy.worker.limits.grants import BULK, URGENT, Deployment, Grant, Refusal
from understudy.worker.providers.base import Answer, Call, Usage, WireRequest
from understudy.worker.redis_scripts import RedisUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

STOPPED_IN_FLIGHT = Failure(FailureClass.CANCELLED, "stopped while the call was in flight", possibly_billed=True)

PUBLISH_S = 1.0


@dataclass(frozen=True, slots=True)
class _Back:
    """What came back, and from where. `number` is the pool's counter when the call began."""

    target: Target
    grant: Grant
    number: int
    came: Exchange


class ProviderCall:
    """Makes the call, records it, publishes its effects. To cut it short, cancel the task that makes it.

    `cut_as` is how it is recorded when cut short. `record` is set once it was sent and has ended; its owner assigns its
    number.
    """

    def __init__(
        self,
        of: ClaimedJob,
        index: int,
        *,
        may_wait: bool,
        refused_by: Collection[str] = (),
        insist: bool = False,
    ) -> None:
        """`index` is the step's in the chain. `may_wait`: it may start a little later. `refused_by` names the
        credentials to skip. `insist`: try even if the model is known to be missing, once."""
        self.step = of.chain.steps[index]
        self.cut_as = STOPPED_IN_FLIGHT
        self.record: AttemptRecord | None = None
        self.account: str | None = None  # the account whose limits it counts against, once granted
        self.in_flight: tuple[str, str] | None = None  # (account, model), from its reservation until it has returned
        self._of = of
        self._index = index
        self._job = of.job
        self._chain = of.chain
        self._tools = of.tools
        self._may_wait = may_wait
        self._refused_by = refused_by
        self._insist = insist and not refused_by
        self._watch: Stopwatch | None = None  # while in flight, once it was sent
        self._is_read = False
        self._back: _Back | None = None

    @property
    def in_hand(self) -> bool:
        """It has returned: there may be an answer to keep, and it is too late to cut it short."""
        return self._is_read or self._back is not None

    @property
    def cost_usd(self) -> float:
        return self.record.cost_usd if self.record else 0.0

    def elapsed_s(self) -> float:
        """Seconds since it was sent; 0 if it is not in flight."""
        return self._watch.elapsed_s() if self._watch else 0.0

    def expected_usd(self) -> float:
        """Its expected cost; UNKNOWN_USD without a known price."""
        most = most_output_tokens(self._of.body)
        return self._tools.costs.of_job(self._chain, self.step, self._of.batch, self._job.tokens, most)

    async def make(self) -> Answered | Failure | Refusal | Absence | EveryKeyRefused | NotStarted:
        """Raises CannotExpress, NoJudge, and RedisUnavailable if nothing could be reserved."""
        fleet = self._tools.fleet
        ways = await fleet.ways(self.step)
        if not ways and self._insist:
            ways = await fleet.ways(self.step, even_missing=True)
        if not ways:
            absence = fleet.why_none(self.step)
            return EveryKeyRefused() if self._refused_by and absence.until is not None else absence
        ways = {each: target for each, target in ways.items() if each.deployment.key not in self._refused_by}
        if not ways:
            return EveryKeyRefused()
        first, target = next(iter(ways.items()))
        call = Call(target.dialect, self.step.model, {**self._of.body, **self.step.params}, self._chain.endpoint)
        request = await self._beside(call, target.adapter.request, call, target.endpoint)
        reserved = await self._tools.limiter.reserve(
            list(ways), self._tokens_to_reserve(call), BULK if self._job.priority is Priority.BULK else URGENT
        )
        if isinstance(reserved, Refusal):
            return reserved
        if reserved.candidate != first:
            target = ways[reserved.candidate]
            request = await self._beside(call, target.adapter.request, call, target.endpoint)
        return await self._start(target, call, request, reserved)

    async def publish(self) -> None:
        """Publish the outcome, if any. No answer is lost because publishing fails."""
        if self._back is None:
            return
        if isinstance(self._back.came.reply, Failure):
            await self._publish_failure(self._back, self._back.came.reply)
        else:
            await self._publish_answer(self._back)

    async def _start(
        self, target: Target, call: Call, request: WireRequest, grant: Grant
    ) -> Answered | Failure | NotStarted:
        deployment = grant.candidate.deployment
        self.account = deployment.account
        self.in_flight = deployment.account, deployment.model
        try:
            if not await self._may_start(grant):
                return NotStarted()
            watch = self._watch = Stopwatch(self._tools.clock)
            number = self._tools.fleet.begun(deployment)
            try:
                read = partial(self._read, call)
                came = await exchange(self._tools.client, target, call, request, self._tools.clock, read)
            except (asyncio.CancelledError, NoJudge):
                self._record(deployment, watch, self.cut_as)
                await if_redis_listens(self._tools.limiter.release(grant, None))
                raise
        finally:
            self.in_flight = self._watch = None
        self._back = _Back(target, grant, number, came)
        cost_usd = self._cost_usd(deployment, came.usage)
        try:
            reply = await self._unless_unacceptable(call, came.reply)
        except NoJudge:  # it was answered and paid for, even if the answer is unacceptable
            self._record(deployment, watch, None, came.usage, cost_usd)
            await self.publish()
            raise
        if isinstance(reply, Failure):
            answers = self._tools.choice.latencies.of(str(self.step)) is not None
            self._tools.fleet.weigh(deployment, target, reply, self._job.id, answers=answers)
            self._record(deployment, watch, reply, came.usage, cost_usd)
            return reply
        record = self._record(deployment, watch, None, came.usage, cost_usd)
        reply = replace(reply, completion={})  # it is serialized, and may be large
        self._back = replace(self._back, came=replace(came, reply=reply))
        return Answered(reply, came.written, deployment, request.dropped, record.latency_ms, cost_usd)

    async def _may_start(self, grant: Grant) -> bool:
        """Wait for the start, if allowed. False also if the deployment was cooled in the meantime."""
        limiter, starts = self._tools.limiter, not grant.wait_s
        try:
            if not starts and self._may_wait:
                await asyncio.sleep(grant.wait_s)
                starts = await limiter.still_holds(grant)
        except asyncio.CancelledError:
            await if_redis_listens(limiter.cancel(grant))
            raise
        if not starts:
            await if_redis_listens(limiter.cancel(grant))
        return starts

    async def _unless_unacceptable(self, call: Call, reply: Answer | Failure) -> Answer | Failure:
        """The failure for an answer that violates the chain's `accept`."""
        accept = self._chain.accept
        if isinstance(reply, Failure) or not accept:
            return reply
        asked = accept, call.endpoint, call.body, reply.completion
        return await self._beside(call, unacceptable, *asked) or reply

    async def _read(self, call: Call, work: Callable[..., T], *arguments: Any) -> T:
        """The answer has arrived."""
        self._is_read = True
        return await self._beside(call, work, *arguments)

    async def _beside(self, call: Call, work: Callable[..., T], *arguments: Any) -> T:
        """A caller's schema must not block other jobs."""
        return await self._tools.schemas.for_request(self._job.tenant, call.body, work, *arguments)

    async def _publish_failure(self, back: _Back, failure: Failure) -> None:
        limiter = self._tools.limiter
        await self._publish_limits(back)
        await if_redis_listens(limiter.release(back.grant, back.came.tokens, refused=failure.cls.traits.load))
        learn = self._tools.fleet.learn
        await if_redis_listens(learn(back.grant, failure, limiter, back.number, self._job.tenant))

    async def _publish_answer(self, back: _Back) -> None:
        """Also for an answer that the chain does not accept: the provider did its part."""
        limiter, deployment = self._tools.limiter, back.grant.candidate.deployment
        self._tools.fleet.answered(deployment, back.target, back.number, self._job.tenant)
        await self._publish_limits(back)
        model = (deployment.provider, deployment.model)
        if self.record is not None and self.record.cls is None:
            self._tools.choice.latencies.answered(*model, self.record.latency_ms)
        if back.came.usage != NOTHING_USED:
            self._tools.estimates.learn(model, self._of.batch, self._job.tokens, back.came.usage)
        used = None if keeps_max_tokens(back.target.dialect) else back.came.tokens
        await if_redis_listens(limiter.release(back.grant, used))
        await if_redis_listens(limiter.answered(back.grant))

    async def _publish_limits(self, back: _Back) -> None:
        if back.came.advertised is not None:
            deployment = back.grant.candidate.deployment
            advertised = self._tools.periods.named(deployment, back.came.advertised)
            await if_redis_listens(self._tools.limiter.advertised(deployment, advertised))

    def _cost_usd(self, deployment: Deployment, usage: Usage) -> float | None:
        if usage == NOTHING_USED:
            return None
        return self._tools.pricing.cost_usd(deployment.provider, deployment.model, usage)

    def _record(
        self,
        deployment: Deployment,
        watch: Stopwatch,
        failure: Failure | None,
        usage: Usage = NOTHING_USED,
        cost_usd: float | None = None,
    ) -> AttemptRecord:
        self.record = AttemptRecord(
            id=new_id("att"),
            no=0,
            step=self._index,
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
            cost_usd=cost_usd or 0.0,
            unpriced=cost_usd is None and (failure is None or usage != NOTHING_USED),
            possibly_billed=failure is not None and failure.possibly_billed,
        )
        return self.record

    def _tokens_to_reserve(self, call: Call) -> int:
        estimates, model = self._tools.estimates, (self.step.provider, self.step.model)
        if call.endpoint == EMBEDDINGS:
            return estimates.input_tokens(model, self._job.tokens)
        most = most_output_tokens(call.body)
        return estimates.tokens_to_reserve(model, call.dialect, self._of.batch, self._job.tokens, most)


async def if_redis_listens(call: Awaitable[None]) -> None:
    """The outcome of a call is kept whether or not Redis can be updated at once; leases repair the counts."""
    try:
        async with asyncio.timeout(PUBLISH_S):
            await call
    except (RedisUnavailable, TimeoutError):
        log.warning("Redis does not answer: limits were not updated after a call")
