"""Resuming a run: compare its current input with what was asked before, and accept the rest."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import amount, of_batch
from understudy.models.costs.forecast import Forecast
from understudy.models.failure import FailureClass
from understudy.models.ids import new_id
from understudy.models.jobs.pause_reasons import BY_FAILURES
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.jobs.views import DeploymentTally
from understudy.models.state import OPEN_BATCH_STATES, BatchState
from understudy.models.store import Store
from understudy.models.store.work.comparison import CHANGED, LEFT
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.audit_actor import command_line
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.intake import BadLine, JobReader, read_jobs
from understudy.producer.ledger import cancel_batch
from understudy.producer.number_format import counted, expected_cost, spent
from understudy.producer.runs.budget_grants import spent_its_budget
from understudy.producer.runs.comparison import Comparison, compare, jobs_to_ask, lines_of
from understudy.producer.runs.other_chain import in_slices
from understudy.producer.runs.preflight import Preflight
from understudy.producer.runs.reruns import EVERYTHING, inherited_budget, worth_of
from understudy.producer.runs.retry_chain import ANSWERED_BY, NEVER_ACCEPTED, views_of
from understudy.producer.runs.runs import (
    OtherRun,
    Run,
    RunRequest,
    accept_run,
    refuse_bad,
    refuse_bad_input,
    run_as_it_stands,
    slices,
)


async def begin(store: Store, settings: Settings, asked: RunRequest) -> Run:
    """Resume this run if the ledger has it, or else accept its input. No job starts before this process takes its
    lease. Raises OtherRun, BadInput, InputError."""
    forgotten = None
    if asked.fresh:
        rules = (await store.tenants.rules("default")).with_budget(asked.budget_usd)
        refuse_bad_input(settings, asked.source, asked.shape, skip_bad=asked.skip_bad, rules=rules)
        forgotten = await _forget(store, asked.run_id)
        batches = {"batches": sorted(forgotten.views)} if forgotten else None
        await store.audit.record(command_line(), DEFAULT_TENANT, "run.forget", asked.run_id, batches)
    if await store.runs.version(asked.run_id):
        return await _Resuming(store, settings, asked).run()
    await _refuse_unknown(store, asked)
    run = await accept_run(store, settings, asked)
    run.forgotten = None if forgotten is None else forgotten.summary(list(forgotten.views.values()))
    return run


async def _refuse_unknown(store: Store, asked: RunRequest) -> None:
    """Discard what an interrupted acceptance left behind. Raises OtherRun for a run of an earlier version, without
    lines."""
    for view in await views_of(store, await store.runs.batches_of(asked.run_id)):
        if view.state not in NEVER_ACCEPTED:
            raise OtherRun(
                f"{asked.output} was written by an earlier version of Understudy, which did not store its lines; "
                "choose another output, or use --fresh to discard that run and its results"
            )
        await store.retention.discard_batch(view.id)


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be asked, and the bad lines that would be skipped. `compared`: of an existing run."""

    preflight: Preflight
    bad: list[BadLine]
    compared: Comparison | None = None


async def preview_of(store: Store, settings: Settings, asked: RunRequest) -> Preview | None:
    """What resuming this run would ask, without storing anything. None: it was never accepted. Raises BadInput."""
    if not await store.runs.version(asked.run_id):
        return None
    return await _Resuming(store, settings, asked).preview()


class _Resuming:
    def __init__(self, store: Store, settings: Settings, asked: RunRequest) -> None:
        self._store = store
        self._settings = settings
        self._asked = asked
        self._id = asked.run_id
        self._version = 0
        self._bad: list[BadLine] = []
        self._notes: list[str] = []
        self._worth: dict[str, frozenset[FailureClass]] = {}

    async def run(self) -> Run:
        try:
            return await self._run()
        finally:
            await self._store.comparison.forget_stale_lines(self._id)

    async def preview(self) -> Preview:
        try:
            compared = await self._compare()
            await self._ask_left(compared)
            preflight = Preflight(self._settings, every_step=True, answered=await self._answered())
            async for _, job, _ in self._to_ask():
                preflight.add(job)
            preflight.notes += self._notes
            return Preview(preflight, self._bad, compared)
        finally:
            await self._store.comparison.forget_stale_lines(self._id)

    async def _compare(self) -> Comparison:
        await self._clear_up()
        self._version = await self._store.runs.version(self._id) + 1
        return await compare(self._store, self._id, self._version, await self._write_lines(), self._worth_of)

    async def _ask_left(self, compared: Comparison) -> None:
        """Jobs accepted earlier but not asked yet are asked with the rest."""
        await self._store.comparison.ask_left(self._id, self._version, compared.lines)
        compared.asked[LEFT], compared.left = compared.left, 0

    async def _run(self) -> Run:
        store, compared = self._store, await self._compare()
        goes_on = await self._can_go_on(compared)
        if not goes_on and compared.left:
            await self._ask_left(compared)
        if compared.asked[CHANGED] and not self._asked.update:
            raise await self._would_replace(compared)
        before = await store.runs.batches_of(self._id)
        preflight = await self._accept(compared) if compared.to_ask else None
        await store.runs.put_version(self._id, self._version)
        if goes_on:
            await self._let_go_on()
        else:
            for view in await views_of(store, before):
                if ANSWERED_BY not in view.options:  # requested by hand, for answered lines: left alone
                    await _close(store, view.id)
        run = await run_as_it_stands(store, self._id)
        run.skipped, run.compared, run.preflight = self._bad, compared, preflight
        return run

    async def _clear_up(self) -> None:
        """Discard what an interrupted resume left behind, and close jobs whose deadline has passed."""
        while await self._store.batch_lifecycle.expire_slice():
            continue
        await self._store.batch_lifecycle.close_finished()
        for view in await views_of(self._store, await self._store.runs.batches_of(self._id)):
            if view.state in NEVER_ACCEPTED:
                await self._store.retention.discard_batch(view.id)
        await self._store.runs.settle_retries(self._id)
        await self._store.comparison.forget_stale_lines(self._id)

    async def _jobs(self) -> AsyncIterator[list[NewJob]]:
        """The good lines of the input in slices; the bad ones go to `_bad`."""
        rules = (await self._store.tenants.rules("default")).with_budget(self._asked.budget_usd)
        expires_at = await self._store.now() + self._settings.deadline_s
        self._bad, self._notes = [], []
        reader = JobReader(self._asked.shape, self._settings, expires_at=expires_at, rules=rules)
        for good in slices(read_jobs(self._asked.source, reader, self._notes), self._bad):
            yield good

    async def _write_lines(self) -> int:
        """Write the current lines as a new version. Returns their number. Raises BadInput, InputError."""
        total = 0
        async for good in self._jobs():
            if not self._bad or self._asked.skip_bad:
                await self._store.runs.add_lines(self._id, self._version, lines_of(good, total + 1, with_jobs=False))
            total += len(good)
        refuse_bad(self._asked.source, self._bad, total, skip_bad=self._asked.skip_bad)
        return total

    async def _answered(self) -> list[DeploymentTally]:
        """The answers that this run has already, by deployment."""
        views = await views_of(self._store, await self._store.runs.batches_of(self._id))
        return [each for view in views for each in view.by_deployment]

    async def _worth_of(self, batch_id: str) -> frozenset[FailureClass]:
        if self._asked.everything:
            return EVERYTHING
        if batch_id not in self._worth:
            self._worth[batch_id] = await worth_of(self._store, self._settings, batch_id)
        return self._worth[batch_id]

    async def _can_go_on(self, compared: Comparison) -> bool:
        """Whether the open batches contain exactly the remaining work, with enough time until their deadlines."""
        batches = await self._store.runs.batches_of(self._id)
        soon = await self._store.now() + self._settings.deadline_s / 2
        open_ones = [view for view in await views_of(self._store, batches) if view.state in OPEN_BATCH_STATES]
        if compared.to_ask or any(view.expires_at < soon for view in open_ones):
            return False
        return await self._store.comparison.open_jobs(batches) == compared.left + compared.retried

    async def _would_replace(self, compared: Comparison) -> OtherRun:
        answered = await self._answered()
        changed, every = (Forecast(self._settings, answered=answered) for _ in range(2))
        async for _, job, reason in self._to_ask():
            if reason == CHANGED:
                changed.add(job)
        async for good in self._jobs():
            every.add_all(good)
        count, lines = compared.asked[CHANGED], compared.lines
        it, since, that = ("it", "it was", "that answer") if count == 1 else ("them", "they were", "those answers")
        return OtherRun(
            f"{compared.words}; nothing was sent. {compared.changed_words} since {since} answered; cost of {that}: "
            f"{spent(compared.changed_cost_usd, compared.changed_unpriced)}. "
            f"--update asks {it} again, {expected_cost(changed.estimate, count)}; "
            f"--fresh asks all {counted(lines, 'line')} again, {expected_cost(every.estimate, lines)}; "
            f"another output keeps {self._asked.output} unchanged"
        )

    async def _to_ask(self) -> AsyncIterator[tuple[int, NewJob, str]]:
        async def one_by_one() -> AsyncIterator[NewJob]:
            async for good in self._jobs():
                for job in good:
                    yield job

        async for each in jobs_to_ask(self._store, self._id, self._version, one_by_one()):
            yield each

    async def _accept(self, compared: Comparison) -> Preflight:
        """Accept the lines to ask as a batch that replaces the open ones. Raises InputError."""
        store, preflight = self._store, Preflight(self._settings, answered=await self._answered())
        new, granted_usd = await self._new_batch()
        await store.intake.create_batch(new)
        try:
            if granted_usd:
                await store.budgets.grant(of_batch(new.id), granted_usd)
            endpoint = None
            async for slice_ in in_slices(self._to_ask()):
                jobs = [job for _, job, _ in slice_]
                endpoint = jobs[0].chain.endpoint
                preflight.add_all(jobs)
                await store.intake.add_jobs(new.id, jobs)
                await store.comparison.give_jobs(
                    self._id, self._version, {position: job.id for position, job, _ in slice_}
                )
            preflight.notes += self._notes
        except BaseException:
            await store.retention.discard_batch(new.id)
            raise
        await store.runs.put_version(self._id, self._version)
        await store.intake.open_batch(new.id, compared.to_ask, endpoint, preflight.forecast.estimate)
        return preflight

    async def _new_batch(self) -> tuple[NewBatch, float]:
        """The new batch, and the grant on top of its budget. Raises InputError."""
        new = NewBatch(
            new_id("batch"),
            weight=self._asked.weight,
            runs_until=0.0,
            source=self._asked.source.name,
            expires_at=await self._store.now() + self._settings.deadline_s,
        )
        new.identity = f"{self._id}-{new.id}"
        views = await views_of(self._store, await self._store.runs.batches_of(self._id))
        if self._asked.budget_usd is not None:
            new.budget_usd = _what_is_left(self._asked.budget_usd, sum(view.cost_usd for view in views))
        elif views:
            new.budget_usd, granted_usd = await inherited_budget(self._store, views[-1].id)
            return new, granted_usd
        return new, 0.0

    async def _let_go_on(self) -> None:
        """Resume batches that were paused because their jobs failed, or that spent their budget and now have a larger
        one. Raises InputError."""
        views = await views_of(self._store, await self._store.runs.batches_of(self._id))
        for view in (each for each in views if each.state in OPEN_BATCH_STATES):
            if self._asked.budget_usd is not None:
                others_usd = sum(other.cost_usd for other in views if other.id != view.id)
                _what_is_left(self._asked.budget_usd, others_usd + view.cost_usd)
                await self._store.budgets.grant_batch(view.id, self._asked.budget_usd - others_usd)
            if view.pause_kind in BY_FAILURES or (self._asked.budget_usd is not None and spent_its_budget(view)):
                await self._store.batch_lifecycle.resume(view.id)


def _what_is_left(budget_usd: float, spent_usd: float) -> float:
    if spent_usd >= budget_usd:
        raise InputError(f"this run has already cost {amount(spent_usd)} USD; give a larger --budget-usd")
    return budget_usd - spent_usd


async def _close(store: Store, batch_id: str) -> None:
    """End a batch of a stopped run; its unasked lines move to another batch or are no longer wanted."""
    view = await store.batches.view(batch_id)
    if view is not None and view.state in OPEN_BATCH_STATES - {BatchState.VALIDATING}:
        await cancel_batch(store, batch_id)


async def _forget(store: Store, run_id: str) -> Run | None:
    """Delete a run with its retries and answers. None: there was none."""
    run = await run_as_it_stands(store, run_id)
    batches = await store.runs.batches_of(run_id)
    for batch_id in reversed(batches):
        for each in reversed([batch_id, *await store.batches.retries_of(batch_id)]):
            await _close(store, each)
            await store.retention.discard_batch(each)
    await store.runs.forget(run_id)
    return run if batches else None
