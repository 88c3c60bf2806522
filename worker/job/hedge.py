"""Hedging: a slow step is not waited for alone.

After `hedge_after_s` the next step that may start at once is called in parallel. The first acceptable answer wins; the
other call is cut short, and its possible cost is recorded. A call that fails leaves the other running.
"""

import asyncio
from dataclasses import replace

from understudy.models.costs.budgets import UNKNOWN_USD
from understudy.models.failure import Failure, FailureClass
from understudy.models.records import SINGLE, StartedJob
from understudy.models.routing.chain import Chain
from understudy.models.state import Priority
from understudy.worker.job.decide import MoveOn, Verdict, after_misfit
from understudy.worker.job.outcome import Answered
from understudy.worker.job.progress import later_steps, moved_to
from understudy.worker.job.provider_call import ProviderCall
from understudy.worker.job.run import JobRun
from understudy.worker.job_resources import JobResources
from understudy.worker.limits.limiter import LimitsUnavailable

LOOK_AGAIN_S = 1.0
"""How often a slow call checks whether it may be hedged: its batch may be nearly done by now, or a limit free."""

SHORTEST_LOOK_S = 0.01

Race = asyncio.Task[Answered | Verdict]
Other = asyncio.Task[Answered | None]


def run_of(job: StartedJob, chain: Chain, tools: JobResources) -> JobRun:
    """The run of a job, hedged if its chain says so."""
    if chain.hedge_after_s is None or len(chain.steps) == 1:
        return JobRun(job, chain, tools)
    return HedgedRun(job, chain, tools, chain.hedge_after_s)


class Beside(JobRun):
    """One call of a later step, for a job that waits for another. It starts at once or not at all."""

    may_wait = False

    def __init__(self, of: JobRun, step: int) -> None:
        super().__init__(of.job, of.chain, of.tools)
        self.asked = step
        self.progress = moved_to(of.progress, step)

    async def ask(self) -> Answered | None:
        try:
            result = await self._try_step()
        except LimitsUnavailable:
            return None
        return result if isinstance(result, Answered) else None


class HedgedRun(JobRun):
    def __init__(self, job: StartedJob, chain: Chain, tools: JobResources, after_s: float) -> None:
        super().__init__(job, chain, tools)
        self._after_s = after_s
        self._beside: Beside | None = None

    def calls_in_flight(self) -> list[tuple[str, str]]:
        return super().calls_in_flight() + (self._beside.calls_in_flight() if self._beside else [])

    async def _try_step(self) -> Answered | Verdict:
        lead: Race = asyncio.create_task(super()._try_step())
        other: Other | None = None
        try:
            while await self._is_slow(lead):
                other = asyncio.create_task(self._ask_beside())
                await self._first(lead, other)
                if _answer_of(lead) is None and (answer := _answer_of(other)) is not None:
                    return await self._adopt(lead, answer)
                if lead.done() or self._has_asked():
                    break
                await asyncio.wait([lead], timeout=LOOK_AGAIN_S)  # no call can start right now
            if other is not None and other.done():
                self._take_over()
            await asyncio.wait([lead])
            return self._unless_tried_beside(lead.result())
        except asyncio.CancelledError:
            if (answer := await self._kept(lead, self)) is not None:
                return answer
            if (answer := await self._kept(other, self._beside)) is None:
                raise
            return await self._adopt(lead, answer)
        finally:
            await self._end(lead, other)

    def _unless_tried_beside(self, result: Answered | Verdict) -> Answered | Verdict:
        """The first call's verdict may be to continue with a step that has meanwhile failed for good in parallel."""
        why = self.progress.ruled_out.get(self.progress.step)
        if why is None or not isinstance(result, MoveOn):
            return result
        return self._follow(after_misfit(self.situation(), self.progress, why))

    async def _is_slow(self, lead: Race) -> bool:
        """Wait until a parallel call may be made. False: the first call finished before."""
        while not lead.done():
            missing_s = self._after_s - (self.call.elapsed_s() if self.call else 0.0)
            if missing_s <= 0 and await self._may_hedge():
                return not lead.done()
            await asyncio.wait([lead], timeout=max(missing_s, SHORTEST_LOOK_S) if missing_s > 0 else LOOK_AGAIN_S)
        return False

    async def _may_hedge(self) -> bool:
        if self.job.priority is Priority.INTERACTIVE:
            return True
        return self.job.batch_id != SINGLE and await self.tools.tails.is_tail(self.job.batch_id, self.chain.hedge_last)

    async def _ask_beside(self) -> Answered | None:
        """Call the first later step that may start at once. None: it did not answer, or there is none."""
        for step in later_steps(self.chain, self.progress):
            self._beside = Beside(self, step)
            answer = await self._beside.ask()
            if self._has_asked():
                return answer
        return None

    def _has_asked(self) -> bool:
        return self._beside is not None and bool(self._beside.attempts)

    async def _first(self, lead: Race, other: Other) -> None:
        """Wait for an answer; for both calls if the first to return has none."""
        await asyncio.wait([lead, other], return_when=asyncio.FIRST_COMPLETED)
        if lead.done() and _answer_of(lead) is None and self._stop_as is None:
            self.call = None  # the job can be stopped again: what was in hand is not an answer
            await asyncio.wait([other])

    async def _adopt(self, lead: Race, answer: Answered) -> Answered:
        """The other step's answer becomes the job's."""
        self._task = None  # the job can no longer be stopped
        beside = self._beside
        assert beside is not None
        await _cut_short(lead, self.call, beside.call)
        self._take_over()
        self.progress = replace(self.progress, step=beside.asked)
        return answer

    async def _kept(self, task: Race | Other | None, run: JobRun | None) -> Answered | None:
        """Stopped: the answer that a step has already given, if any."""
        if task is None or run is None or self._stop_as is None:
            return None
        if not task.done() and run.in_hand:
            await asyncio.wait([task])
        answer = _answer_of(task)
        if answer is not None and (current := asyncio.current_task()) is not None:
            current.uncancel()
        elif task.done():
            run.call = None  # what was in hand was not an answer
        return answer

    async def _end(self, lead: Race, other: Other | None) -> None:
        """Cancel everything in progress for this step."""
        await _cut_short(lead, self.call, None)
        if other is not None and self._beside is not None:
            await _cut_short(other, self._beside.call, self.call if _answer_of(lead) else None)
        self._take_over()

    def _take_over(self) -> None:
        """Attempts of the parallel call become part of this run's."""
        beside, self._beside = self._beside, None
        if beside is None:
            return
        for attempt in beside.attempts:
            self._keep(attempt)
        errors = {step: why for step, why in beside.progress.errors.items() if step == beside.asked}
        ruled_out = {step: why for step, why in beside.progress.ruled_out.items() if step == beside.asked}
        self.progress = replace(
            self.progress,
            errors={**errors, **self.progress.errors},
            ruled_out={**ruled_out, **self.progress.ruled_out},
        )


def _answer_of(task: Race | Other) -> Answered | None:
    """None: still running, ended without an answer, or cut short."""
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    result = task.result()
    return result if isinstance(result, Answered) else None


async def _cut_short(task: Race | Other, call: ProviderCall | None, winner: ProviderCall | None) -> None:
    """Cancel a task and its call, unless that has just returned. `winner` None: because the job was stopped."""
    if task.done():
        return
    if call is not None and winner is not None:
        call.cut_as = _beaten_by(winner, call)
    if call is None or not call.in_hand:
        task.cancel()
    await asyncio.wait([task])


def _beaten_by(winner: ProviderCall, loser: ProviderCall) -> Failure:
    """The cost of a call whose answer is discarded is an estimate at best."""
    usd = loser.expected_usd()
    cost = f"about ${usd:.6f} may be billed" if usd < UNKNOWN_USD else "it may be billed, and its price is unknown"
    text = f"cut short: {winner.step} answered first; {cost}"
    return Failure(FailureClass.CANCELLED, text, possibly_billed=True)
