"""Retries: jobs are run again as a new batch linked to the old one; the newest answer of a line counts."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import of_batch
from understudy.models.costs.forecast import Forecast
from understudy.models.errors import WrongUse
from understudy.models.failure import FailureClass, classes_where
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.jobs.views import BatchView
from understudy.models.routing.chain import Endpoint
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import OPEN_BATCH_STATES, TERMINAL_STATES
from understudy.models.store import Store, StoreConflict
from understudy.models.store.work.reruns import EndedJob
from understudy.producer.runs.other_chain import AS_BEFORE, Origin, as_allowed, in_slices, names_a_chain, reroute
from understudy.producer.runs.retry_chain import ANSWERED_BY, NEVER_ACCEPTED, accepted, line_of

WORTH_A_RETRY = classes_where(lambda traits: traits.rerun)
WORTH_ANOTHER_CHAIN = classes_where(lambda traits: traits.rerun_elsewhere)

EVERYTHING = frozenset(FailureClass)

FILLED_WITHIN_S = 600.0
"""Seconds. A retry still being accepted after this time was left behind by a killed process."""


class RetryUnderWay(WrongUse):
    """Another retry of the same batch is being accepted."""

    status = 409
    code = "retry_under_way"


@dataclass(slots=True)
class Retry:
    """The jobs of a retry. `batch_id` None: nothing to retry. `left_out`: jobs that would fail the same way again, by
    class."""

    batch_id: str | None = None
    jobs: int = 0
    left_out: Counter[FailureClass] = field(default_factory=Counter)

    @property
    def left_out_words(self) -> str:
        """One sentence about the jobs that are not retried; empty if there are none."""
        if not self.left_out:
            return ""
        classes = ", ".join(f"{count:,} {cls}" for cls, count in self.left_out.most_common())
        return f"not retried, because they would fail the same way: {classes}; --all retries them, too"


async def retry(
    store: Store,
    settings: Settings,
    batch_id: str,
    route: RouteOptions,
    *,
    everything: bool = False,
    answered_by: Sequence[str] = (),
) -> tuple[Retry, dict[str, Any]]:
    """What `retry_answered` does if `answered_by` names providers, otherwise `retry_failed`; and the values for the
    audit log. `everything`: whatever the failure was."""
    if answered_by:
        again = await retry_answered(store, settings, batch_id, answered_by, route)
    else:
        again = await retry_failed(store, settings, batch_id, EVERYTHING if everything else WORTH_A_RETRY, route)
    asked = {"model": route.model, "chain": route.chain, "answered_by": list(answered_by), "all": everything}
    return again, {"batch": again.batch_id, "jobs": again.jobs} | {
        word: given for word, given in asked.items() if given
    }


async def retry_failed(
    store: Store,
    settings: Settings,
    batch_id: str,
    worth: frozenset[FailureClass] = WORTH_A_RETRY,
    route: RouteOptions = AS_BEFORE,
) -> Retry:
    """Submit the jobs that ended without an answer again, as a new batch linked to the newest one of the retry chain.

    These are failed jobs that may succeed, expired and cancelled jobs, and, if the first jobs of the batch all failed,
    that failure as well, because the batch paused for it to be fixed. For a batch of a run, these are the unanswered
    lines of the run's current input. The newest retry of a line counts, so that two retries do not run a line twice.
    Jobs keep their chains and data rules; a model or chain in `route` replaces the chain, not the rules. Raises
    RequestError, RetryUnderWay. Memory: the custom ids of the retries, not of the batch.
    """
    line = await _Line.of(store, batch_id)
    if names_a_chain(route):
        worth |= WORTH_ANOTHER_CHAIN
    of_each = {each: await worth_of(store, settings, each, worth) for each in line.batches}
    retry = Retry()

    async def wanted() -> AsyncIterator[NewJob]:
        async for ended in line.unanswered_jobs():
            if ended.failure is None or ended.failure in of_each.get(ended.batch_id, worth):
                yield ended.job
            else:
                retry.left_out[ended.failure] += 1

    return await _submit_again(store, settings, line, retry, route, wanted())


async def retry_answered(
    store: Store, settings: Settings, batch_id: str, providers: Sequence[str], route: RouteOptions
) -> Retry:
    """Submit the lines that one of these providers answered again, as a new batch; see `retry_failed`."""
    line = await _Line.of(store, batch_id)
    options = {ANSWERED_BY: list(providers), "model": route.model, "chain": route.chain}
    said = {word: value for word, value in options.items() if value is not None}

    async def wanted() -> AsyncIterator[NewJob]:
        async for ended in line.answered_by(providers):
            yield ended.job

    return await _submit_again(store, settings, line, Retry(), route, wanted(), said)


async def take_another_chain(store: Store, settings: Settings, batch_id: str, route: RouteOptions) -> tuple[int, Retry]:
    """Switch the waiting jobs of an open batch to this model or chain, and retry its failed jobs with it. Returns the
    number of switched jobs, and the retry. Raises RequestError, RetryUnderWay."""
    return await reroute(store, settings, batch_id, route), await retry_failed(store, settings, batch_id, route=route)


@dataclass(frozen=True, slots=True)
class _Line:
    """A batch and its accepted retries, or all batches of a run, oldest first."""

    store: Store
    batches: list[str]
    run_id: str | None

    @classmethod
    async def of(cls, store: Store, batch_id: str) -> "_Line":
        run_id = await store.runs.run_of(batch_id)
        if run_id is None:
            return cls(store, await line_of(store, batch_id), None)
        await store.runs.settle_retries(run_id)
        return cls(store, await accepted(store, await store.runs.batches_of(run_id)), run_id)

    def unanswered_jobs(self) -> AsyncIterator[EndedJob]:
        if self.run_id is not None:
            return self.store.reruns.unanswered_lines(self.run_id)
        return self._newest(self.store.reruns.unanswered_jobs)

    def answered_by(self, providers: Sequence[str]) -> AsyncIterator[EndedJob]:
        if self.run_id is not None:
            return self.store.reruns.lines_answered_by(self.run_id, providers)
        return self._newest(lambda batch_id: self.store.reruns.answered_by(batch_id, providers))

    async def _newest(self, chosen: Callable[[str], AsyncIterator[EndedJob]]) -> AsyncIterator[EndedJob]:
        """The chosen jobs that have no newer record."""
        newer: set[str] = set()
        for batch_id in reversed(self.batches):
            async for ended in chosen(batch_id):
                if ended.job.custom_id not in newer:
                    yield ended
            if batch_id != self.batches[0]:
                newer.update([each async for each in self.store.reruns.custom_ids(batch_id)])


async def _submit_again(
    store: Store,
    settings: Settings,
    line: _Line,
    retry: Retry,
    route: RouteOptions,
    jobs: AsyncIterator[NewJob],
    options: dict[str, Any] | None = None,
) -> Retry:
    """Accept these jobs, if any, as a new batch linked to the newest one of the retry chain.

    They are newly accepted, so the current rules of their tenant apply. Raises RequestError when those leave a job
    without a step.
    """
    newest = await store.batches.view(line.batches[-1]) if line.batches else None
    if newest is None:
        return retry
    new = await _following(store, line, newest, options)
    new.budget_usd, granted_usd = await inherited_budget(store, newest.id)
    forecast = Forecast(settings, answered=newest.by_deployment)
    of = Origin(newest.tenant, cast(Endpoint, newest.endpoint), new.budget_usd)
    jobs = await as_allowed(store, settings, route, of, jobs)
    try:
        async for slice_ in in_slices(jobs):
            if not retry.jobs:
                await _create(store, new, newest)
                if granted_usd:
                    await store.budgets.grant(of_batch(new.id), granted_usd)
            renamed = {job.id: new_id("job") for job in slice_}
            for job in slice_:
                job.id, job.expires_at = renamed[job.id], new.expires_at
            await store.intake.add_jobs(new.id, slice_)
            if line.run_id is not None:
                await store.runs.point_again(line.run_id, renamed)
            retry.jobs += len(slice_)
            forecast.add_all(slice_)
    except BaseException:
        await store.retention.discard_batch(new.id)
        raise
    if retry.jobs:
        await _share_budget(store, newest, new.id, retry.jobs)
        await store.intake.open_batch(new.id, retry.jobs, estimate=forecast.estimate)
        retry.batch_id = new.id
    return retry


async def _share_budget(store: Store, newest: BatchView, retry_id: str, jobs: int) -> None:
    """While the retried batch is still open, the two batches share the remaining budget in proportion to their jobs."""
    open_jobs = newest.total - sum(newest.counts.get(state, 0) for state in TERMINAL_STATES)
    if newest.state not in OPEN_BATCH_STATES or not open_jobs:
        return
    old, new = of_batch(newest.id), of_batch(retry_id)
    budgets = await store.budgets.read([old, new])
    of_old, of_new = budgets[old].balance, budgets[new].balance
    if of_old is not None and of_new is not None and of_old.left_usd > 0:
        part = of_old.left_usd * jobs / (open_jobs + jobs)
        await store.budgets.grant(new, part - of_new.left_usd)
        await store.budgets.grant(old, -part)


async def _following(store: Store, line: _Line, newest: BatchView, options: dict[str, Any] | None) -> NewBatch:
    """A retry of the newest batch. Its identity ensures that a batch has one retry at a time."""
    return NewBatch(
        new_id("batch"),
        priority=newest.priority,
        tenant=newest.tenant,
        expires_at=await store.now() + (newest.expires_at - newest.created_at),
        identity=f"{line.run_id or 'retry'}-of-{newest.id}",
        retry_of=newest.id,
        source=newest.source,
        endpoint=newest.endpoint,
        metadata=newest.metadata,
        options=orjson.dumps(options).decode() if options else None,
        weight=newest.weight,
    )


async def _create(store: Store, new: NewBatch, newest: BatchView) -> None:
    """Raises RetryUnderWay while another retry of the same batch is being accepted."""
    try:
        await store.intake.create_batch(new)
    except StoreConflict:
        for each in await store.batches.retries_of(newest.id):
            view = await store.batches.view(each)
            if view and view.state in NEVER_ACCEPTED and await store.now() - view.created_at > FILLED_WITHIN_S:
                await store.retention.discard_batch(each)
                await store.intake.create_batch(new)
                return
        raise RetryUnderWay(f"another retry of {newest.id} is being accepted; wait for it to finish") from None


async def inherited_budget(store: Store, batch_id: str) -> tuple[float | None, float]:
    """The budget of a batch that follows another one, and the grant on top of it (usually negative): it may spend what
    the other one left, and `resume` grants the original amount again."""
    budget = (await store.budgets.read([of_batch(batch_id)]))[of_batch(batch_id)]
    granted_usd = 0.0 if budget.balance is None else budget.balance.left_usd - (budget.base_usd or 0.0)
    return budget.base_usd, granted_usd


async def worth_of(
    store: Store, settings: Settings, batch_id: str, worth: frozenset[FailureClass] = WORTH_A_RETRY
) -> frozenset[FailureClass]:
    """The failures of a batch that are worth a retry: `worth`, and the common failure of its first jobs, because the
    batch paused for that to be fixed."""
    first = settings.batches.canary_lines
    died = await store.canary.first_failure(batch_id, first) if first else None
    return worth if died is None else worth | {died.cls}
