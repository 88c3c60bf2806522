"""One attempt of one step of a chain:

    eligible → reserve budget → acquire fallback → reserve limits → call → judge the answer → publish

It ends with an answer, or with an event, and does not know what follows: `decide` does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from understudy.models.failure import Failure
from understudy.worker.budgets.fallback_quota import QuotaUsedUp
from understudy.worker.budgets.reservations import InsufficientBudget
from understudy.worker.job.claimed_job import ClaimedJob
from understudy.worker.job.events import Event, ShareUsedUp
from understudy.worker.job.outcome import Answered
from understudy.worker.job.progress import Progress, is_last_resort
from understudy.worker.job.provider_call import STOPPED_IN_FLIGHT, ProviderCall, if_redis_listens
from understudy.worker.providers.base import CannotExpress


async def attempt_step(of: ClaimedJob, progress: Progress, call: ProviderCall) -> Answered | Event:
    """Raises RedisUnavailable, NoJudge, StoreOutage, StoreDefect."""
    if (unfit := of.why_not(progress.step)) is not None:
        return unfit
    async with _budget(of, call) as short:
        if short is not None:
            return short
        if (used_up := await _acquire_fallback(of, progress)) is not None:
            return used_up
        try:
            came = await call.make()
        except CannotExpress as misfit:
            return misfit
        await call.publish()
        return came


@asynccontextmanager
async def _budget(of: ClaimedJob, call: ProviderCall) -> AsyncIterator[InsufficientBudget | None]:
    """Reserve the expected cost of a call in every budget that covers it, and settle its actual cost afterwards."""
    budgets = of.tools.budgets
    subjects = budgets.covering(of.job, call.step.provider)
    reserved = await budgets.reserve(subjects, call.expected_usd()) if subjects else None
    if reserved is None or isinstance(reserved, InsufficientBudget):
        yield reserved
        return
    try:
        yield None
    finally:
        await if_redis_listens(budgets.settle(reserved, call.cost_usd))


async def _acquire_fallback(of: ClaimedJob, progress: Progress) -> QuotaUsedUp | ShareUsedUp | None:
    """None: the step may be tried. Only a share of a batch's jobs may be answered by a later step."""
    share = of.chain.max_fallback_share
    if share is None or of.batch is None or progress.step == (primary := of.primary(progress)):
        return None
    try:
        return None if await of.tools.fallback_quota.acquire(of.job, share) else ShareUsedUp(primary)
    except QuotaUsedUp as not_yet:
        return not_yet


class StepAttempt:
    """An attempt in progress, in a task of its own: it can be cut short until its call has returned."""

    def __init__(self, of: ClaimedJob, progress: Progress, *, may_wait: bool = True) -> None:
        """Begins it. `may_wait`: the call may start a little after it was granted."""
        self.step = progress.step
        self.call = ProviderCall(
            of,
            progress.step,
            may_wait=may_wait,
            refused_by=progress.refused_by,
            insist=is_last_resort(of.chain, progress),
        )
        self.task = asyncio.create_task(attempt_step(of, progress, self.call))

    @property
    def event(self) -> Answered | Event | None:
        """What it came to. None: it is in progress, was cut short, or failed with an exception."""
        if not self.task.done() or self.task.cancelled() or self.task.exception() is not None:
            return None
        return self.task.result()

    @property
    def answer(self) -> Answered | None:
        event = self.event
        return event if isinstance(event, Answered) else None

    async def cut_short(self, why: Failure = STOPPED_IN_FLIGHT) -> None:
        """Returns when it has ended. A call that has already returned is kept, with its effects."""
        self.call.cut_as = why
        if not self.call.in_hand:
            self.task.cancel()
        await asyncio.wait([self.task])
