"""Hedging: a slow step is not waited for alone.

After `hedge_after_s` the next step that may start at once is called in parallel. The first acceptable answer wins; the
other call is cut short, and its possible cost is recorded. A call that fails leaves the other running.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from understudy.models.costs.budgets import UNKNOWN_USD
from understudy.models.failure import Failure, FailureClass
from understudy.models.jobs.execution import AttemptRecord
from understudy.models.state import JobState, Priority
from understudy.worker.job.attempt import StepAttempt
from understudy.worker.job.claimed_job import ClaimedJob
from understudy.worker.job.progress import Progress, later_steps, moved_to
from understudy.worker.job.provider_call import STOPPED_IN_FLIGHT, ProviderCall

LOOK_AGAIN_S = 1.0
"""How often a slow call checks whether it may be hedged: its batch may be nearly done by now, or a limit free."""

SHORTEST_LOOK_S = 0.01


class Race:
    """The attempt of a step and, while that is slow and the chain says so, one of a later step: the `hedge`.

    Once `stop` is done, both are cut short unless their calls have returned. `keep` is called with the record of each
    call, in the order in which they count.
    """

    def __init__(
        self,
        of: ClaimedJob,
        progress: Progress,
        stop: "asyncio.Future[JobState]",
        keep: Callable[[AttemptRecord], None],
    ) -> None:
        self.first = StepAttempt(of, progress)
        self.hedge: StepAttempt | None = None
        self._of = of
        self._progress = progress
        self._stop = stop
        self._keep_record = keep
        self._kept: list[StepAttempt] = []

    @property
    def attempts(self) -> list[StepAttempt]:
        return [self.first] if self.hedge is None else [self.first, self.hedge]

    async def run(self) -> StepAttempt:
        """The attempt that counts: the hedge if only that answered. Once it has returned, both have ended."""
        try:
            while await self._is_slow():
                await self._start_hedge()
                if self.first.task.done() or self._is_hedged():
                    break
                await self._until_one_ends(self.first, timeout_s=LOOK_AGAIN_S)  # no call can start right now
            hedge = self.hedge
            if hedge is not None and hedge.answer is not None and self.first.answer is None:
                return hedge
            if hedge is not None and not self.first.task.done():
                self._keep(hedge)
            await self._until_one_ends(self.first)
            return self.first
        finally:
            await self._end()

    async def _end(self) -> None:
        answered = [each.call for each in self.attempts if each.answer is not None]
        for attempt in self.attempts:
            if not attempt.task.done():
                why = _cancelled_by_winner(answered[0], attempt.call) if answered else STOPPED_IN_FLIGHT
                await attempt.cut_short(why)
            self._keep(attempt)

    async def _is_slow(self) -> bool:
        """Wait until a parallel call may be made. False: the first attempt has ended before."""
        after_s = self._of.chain.hedge_after_s
        while after_s is not None and len(self._of.chain.steps) > 1 and not self.first.task.done():
            missing_s = after_s - self.first.call.elapsed_s()
            if missing_s <= 0 and await self._may_hedge():
                return not self.first.task.done()
            wait_s = max(missing_s, SHORTEST_LOOK_S) if missing_s > 0 else LOOK_AGAIN_S
            await self._until_one_ends(self.first, timeout_s=wait_s)
        return False

    async def _may_hedge(self) -> bool:
        if self._of.job.priority is Priority.INTERACTIVE:
            return True
        batch, last = self._of.batch, self._of.chain.hedge_last
        return batch is not None and await self._of.tools.tails.is_tail(batch, last)

    async def _start_hedge(self) -> None:
        """Call the first later step that may start at once, until one of both answers or the hedge has failed."""
        for step in later_steps(self._of.chain, self._progress):
            self.hedge = StepAttempt(self._of, moved_to(self._progress, step), may_wait=False)
            await self._until_one_ends(self.first, self.hedge)
            if self.first.task.done() and self.first.answer is None:
                self._keep(self.first)
                await self._until_one_ends(self.hedge)
            if self._is_hedged() or self.first.answer is not None or self._stop.done():
                return

    def _is_hedged(self) -> bool:
        """The hedge's call was sent, and has ended."""
        return self.hedge is not None and (self.hedge.answer is not None or self.hedge.call.record is not None)

    async def _until_one_ends(self, *attempts: StepAttempt, timeout_s: float | None = None) -> None:
        """Once the job is stopped: until all of them have ended."""
        ends: list[asyncio.Future[Any]] = [self._stop, *(attempt.task for attempt in attempts)]
        await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._stop.done():
            await asyncio.gather(*(attempt.cut_short() for attempt in attempts))

    def _keep(self, attempt: StepAttempt) -> None:
        if attempt.call.record is not None and attempt not in self._kept:
            self._kept.append(attempt)
            self._keep_record(attempt.call.record)


def _cancelled_by_winner(winner: ProviderCall, loser: ProviderCall) -> Failure:
    """The cost of a call whose answer is discarded is an estimate at best."""
    usd = loser.expected_usd()
    cost = f"about ${usd:.6f} may be billed" if usd < UNKNOWN_USD else "it may be billed, and its price is unknown"
    text = f"cut short: {winner.step} answered first; {cost}"
    return Failure(FailureClass.CANCELLED, text, possibly_billed=True)
