"""A run: one input, one output file, and the batches that fill it. Resumed, not repeated.

A run is named by its output's place and by the hash of the input's bytes and of the options that shape the
requests. Run again, it goes on with what is unfinished and tries again what failed and could succeed; a retry is a
new batch that points at the old one, and the newest record of a line counts.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import orjson

from models.budgets import of_batch
from models.chain import CHAT, Endpoint
from models.failure import FailureClass
from models.forecast import Forecast
from models.ids import new_id
from models.pausing import is_by_failures
from models.records import BatchView, NewBatch, NewJob
from models.routing import RouteOptions, Router
from models.settings import Settings
from models.state import OPEN_BATCH_STATES, TERMINAL_STATES, BatchState, JobState
from models.store import Store
from models.weights import USUAL_WEIGHT
from producer.intake import BadLine, InputError, Shape, identity_of, read_jobs
from producer.money import spent_its_budget
from producer.preflight import Preflight

SLICE = 2_000
ANSWERED_BY = "answered_by"
"""In the options of a retry: the providers whose answers it asks for again."""

WORTH_A_RETRY = frozenset(FailureClass) - {FailureClass.BAD_REQUEST, FailureClass.CONTENT_FILTER}
"""What a rerun tries again; of the others, the same request would be refused again."""

EVERYTHING = frozenset(FailureClass)

NEVER_ACCEPTED = frozenset({BatchState.VALIDATING, BatchState.FAILED})
"""A batch that is being filled, or whose filling was broken off."""

ENDED_BADLY = TERMINAL_STATES - {JobState.SUCCEEDED}


class OtherRun(Exception):
    """The output belongs to a run of another input or other options. One sentence."""


class BadInput(Exception):
    """Lines that cannot become jobs; nothing was accepted."""

    def __init__(self, bad: list[BadLine], good: int) -> None:
        super().__init__(f"{len(bad)} bad lines")
        self.bad = bad
        self.good = good


@dataclass(slots=True)
class Run:
    """`batches` are the batch and its retries, oldest first. `resumed`: lines that were done before."""

    batches: list[str]
    skipped: list[BadLine] = field(default_factory=list)
    resumed: int = 0
    preflight: Preflight | None = None  # of a run that begins


async def begin(
    store: Store,
    settings: Settings,
    source: Path,
    output: Path,
    shape: Shape,
    *,
    skip_bad: bool,
    fresh: bool,
    budget_usd: float | None = None,
    weight: float = USUAL_WEIGHT,
) -> Run:
    """Find this run in the ledger, or accept its input. Raises OtherRun, BadInput, InputError.

    `budget_usd` is for the run and its retries together; None leaves a run that is found its budget.
    """
    place = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]
    identity = f"{place}-{identity_of(source, shape)}"
    known = await store.find_runs(place)
    if fresh:
        for batch_id, _ in known:
            await _forget(store, batch_id)
        known = []
    for batch_id, other in known:
        if other == identity:
            run = await _resume(store, settings, batch_id)
            if run is not None:
                if budget_usd is not None:
                    await _set_budget(store, run, budget_usd)
                return run
        elif (await store.batch_view(batch_id)) is not None:
            raise OtherRun(
                f"{output} belongs to a run of another input or other options; "
                "choose another output, or pass --fresh to forget that run and its results"
            )
    batch_id = new_id("batch")
    new = NewBatch(batch_id, identity=identity, weight=weight, budget_usd=budget_usd)
    preflight = Preflight(settings)
    skipped = await accept(store, settings, source, shape, new, skip_bad=skip_bad, preflight=preflight)
    return Run([batch_id], skipped, preflight=preflight)


async def accept(
    store: Store,
    settings: Settings,
    source: Path,
    shape: Shape,
    batch: NewBatch,
    *,
    skip_bad: bool,
    preflight: Preflight | None = None,
) -> list[BadLine]:
    """Write an input as one batch, all or nothing. Returns the bad lines that were skipped.

    `preflight` is told of each good line. Raises BadInput when there are bad lines that may not be skipped, or no good
    one at all; InputError.
    """
    batch.source = batch.source or source.name
    batch.expires_at = batch.expires_at or await store.now() + settings.deadline_s
    await store.create_batch(batch)
    bad: list[BadLine] = []
    preflight, total, endpoint = preflight or Preflight(settings), 0, None
    try:
        rules = await store.tenant_rules(batch.tenant)
        lines = read_jobs(source, shape, settings, priority=batch.priority, expires_at=batch.expires_at, rules=rules)
        for good in slices(lines, bad):
            total, endpoint = total + len(good), good[0].chain.endpoint
            preflight.add_all(good)
            if not bad or skip_bad:
                await store.add_jobs(batch.id, good)
        refuse_bad(source, bad, total, skip_bad=skip_bad)
    except BaseException:
        await store.discard_batch(batch.id)
        raise
    await store.open_batch(batch.id, total, endpoint, preflight.forecast.estimate)
    return bad


def refuse_bad(source: Path, bad: list[BadLine], good: int, *, skip_bad: bool) -> None:
    """Raises BadInput for bad lines that may not be skipped, or without a good one; InputError without any line."""
    if not bad and not good:
        raise InputError(f"{source} has no lines; nothing was sent")
    if (bad and not skip_bad) or not good:
        raise BadInput(bad, good)


def slices(lines: Iterable[NewJob | BadLine], bad: list[BadLine]) -> Iterable[list[NewJob]]:
    """Good lines in slices; bad ones are put aside."""
    iterator = iter(lines)
    while chunk := list(islice(iterator, SLICE)):
        bad.extend(line for line in chunk if isinstance(line, BadLine))
        if good := [line for line in chunk if isinstance(line, NewJob)]:
            yield good


async def _resume(store: Store, settings: Settings, batch_id: str) -> Run | None:
    """The run as it stands, with a retry of what has no answer and may get one. None: it was never accepted."""
    if not await line_of(store, batch_id):
        await store.discard_batch(batch_id)
        return None
    await retry_failed(store, settings, batch_id)
    run = Run(await line_of(store, batch_id))
    for view in await views_of(store, run.batches):
        if view.paused and is_by_failures(view.paused):
            await store.resume_batch(view.id)
    run.resumed = summary(await views_of(store, run.batches)).succeeded
    return run


async def _set_budget(store: Store, run: Run, budget_usd: float) -> None:
    """The newest batch of the run may spend what the others left, and goes on if it had spent its budget."""
    *others, newest = await views_of(store, run.batches)
    if await store.grant_batch(newest.id, budget_usd - sum(each.cost_usd for each in others)) is not None:
        if spent_its_budget(newest):
            await store.resume_batch(newest.id)


async def views_of(store: Store, batches: Sequence[str]) -> list[BatchView]:
    """Those of the batches that exist, in the given order."""
    views = [await store.batch_view(batch_id) for batch_id in batches]
    return [view for view in views if view is not None]


async def retry_failed(
    store: Store, settings: Settings, batch_id: str, worth: frozenset[FailureClass] = WORTH_A_RETRY
) -> str | None:
    """Submit what ended without an answer again, as a new batch that points at the newest one of this batch's line.

    That is what failed and may succeed, what expired and what was cancelled; and whatever made the first jobs of a
    batch fail, because it paused so that somebody mends it. A line counts as its newest retry says, so nothing is tried
    twice because two retries were asked for. None when there is nothing to try. Memory: the custom ids of the retries,
    not of the batch.
    """
    line = await line_of(store, batch_id)
    of_each = {each: await _worth(store, settings, each, worth) for each in line}
    return await _submit_again(store, settings, line, _unanswered(store, of_each))


async def retry_answered(
    store: Store, settings: Settings, batch_id: str, providers: Sequence[str], route: RouteOptions
) -> str | None:
    """Submit the lines again that one of these providers answered, as a new batch; `retry_failed` says how.

    They keep their chains, unless `route` names a model or a chain. None when there are none. Raises RequestError.
    """
    line = await line_of(store, batch_id)
    answered = (store.answered_jobs(each, providers) for each in reversed(line))
    jobs = _newest(store, line, ([each] for each in answered))
    if route.model is not None or route.chain is not None:
        view = await store.batch_view(batch_id)
        endpoint = cast(Endpoint, view.endpoint) if view else CHAT
        jobs = _along(Router(settings, route, endpoint=endpoint), jobs)
    options = {ANSWERED_BY: list(providers), "model": route.model, "chain": route.chain}
    return await _submit_again(
        store, settings, line, jobs, {word: said for word, said in options.items() if said is not None}
    )


async def _along(router: Router, jobs: AsyncIterator[NewJob]) -> AsyncIterator[NewJob]:
    """The jobs with another chain."""
    async for job in jobs:
        job.chain, _ = router.resolve(orjson.loads(job.body))
        yield job


async def _submit_again(
    store: Store,
    settings: Settings,
    line: Sequence[str],
    jobs: AsyncIterator[NewJob],
    options: dict[str, Any] | None = None,
) -> str | None:
    """A new batch of these jobs that points at the newest one of the line; None when there are none."""
    newest = await store.batch_view(line[-1]) if line else None
    if newest is None:
        return None
    retry = NewBatch(
        new_id("batch"),
        priority=newest.priority,
        tenant=newest.tenant,
        expires_at=await store.now() + (newest.expires_at - newest.created_at),
        retry_of=newest.id,
        source=newest.source,
        endpoint=newest.endpoint,
        metadata=newest.metadata,
        options=orjson.dumps(options).decode() if options else None,
        weight=newest.weight,
    )
    budget = (await store.budgets([of_batch(newest.id)]))[of_batch(newest.id)]
    retry.budget_usd = budget.base_usd
    forecast, total = Forecast(settings), 0
    try:
        async for slice_ in _in_slices(jobs):
            if not total:
                await store.create_batch(retry)
                if budget.purse is not None:  # it may spend what is left, and `resume` grants the first amount
                    await store.grant(of_batch(retry.id), budget.purse.left_usd - (budget.base_usd or 0.0))
            for job in slice_:
                job.id, job.expires_at = new_id("job"), retry.expires_at
            await store.add_jobs(retry.id, slice_)
            total += len(slice_)
            forecast.add_all(slice_)
    except BaseException:
        await store.discard_batch(retry.id)
        raise
    if not total:
        return None
    await store.open_batch(retry.id, total, estimate=forecast.estimate)
    return retry.id


async def line_of(store: Store, batch_id: str) -> list[str]:
    """A batch and its retries that were accepted, oldest first. Empty when the batch was not."""
    line = []
    for each in [batch_id, *await store.retries_of(batch_id)]:
        view = await store.batch_view(each)
        if view is not None and view.state not in NEVER_ACCEPTED:
            line.append(each)
    return line if line[:1] == [batch_id] else []


def _unanswered(store: Store, worth: Mapping[str, frozenset[FailureClass]]) -> AsyncIterator[NewJob]:
    """The jobs of a batch and its retries that have no newer record and that ended without an answer; of those that
    failed the ones whose failure is `worth` a retry, by batch, oldest first."""
    batches = list(worth)
    ended_badly = ((store.failed_jobs(each, worth[each]), store.closed_jobs(each)) for each in reversed(batches))
    return _newest(store, batches, ended_badly)


async def _worth(
    store: Store, settings: Settings, batch_id: str, worth: frozenset[FailureClass]
) -> frozenset[FailureClass]:
    """With what made the first jobs of the batch fail."""
    first = settings.batches.canary_lines
    died = await store.first_failure(batch_id, first) if first else None
    return worth if died is None else worth | {died.cls}


async def _newest(
    store: Store, batches: Sequence[str], newest_first: Iterable[Iterable[AsyncIterator[NewJob]]]
) -> AsyncIterator[NewJob]:
    """Those of the jobs of a batch and its retries (oldest first) that have no newer record."""
    newer: set[str] = set()
    for batch_id, chosen in zip(reversed(batches), newest_first, strict=True):
        for jobs in chosen:
            async for job in jobs:
                if job.custom_id not in newer:
                    yield job
        if batch_id != batches[0]:
            newer.update([each async for each in store.custom_ids(batch_id)])


async def _in_slices(jobs: AsyncIterator[NewJob]) -> AsyncIterator[list[NewJob]]:
    chunk: list[NewJob] = []
    async for job in jobs:
        chunk.append(job)
        if len(chunk) == SLICE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _forget(store: Store, batch_id: str) -> None:
    """Delete a run with its retries; nothing else runs on this data folder now, so closing it is ours to do."""
    for each in reversed([batch_id, *await store.retries_of(batch_id)]):
        view = await store.batch_view(each)
        if view is not None and view.state in OPEN_BATCH_STATES - {BatchState.VALIDATING}:
            await store.cancel_batch(each)
            while await store.cancel_slice():
                continue
            await store.close_batches()
        await store.discard_batch(each)


@dataclass(frozen=True, slots=True)
class Summary:
    """Where a run stands, over its batches. A line that is being retried counts as unfinished."""

    total: int
    succeeded: int
    failed: int
    open: bool
    cost_usd: float
    fallbacks: int

    @property
    def done(self) -> int:
        return self.succeeded + self.failed


def summary(views: list[BatchView]) -> Summary:
    """Sum a batch and its retries, oldest first: each retry's lines stood as failed in what it retries, or as answered
    when the retry asked again for the answers of a provider."""
    asked_again = sum(view.total for view in views[1:] if ANSWERED_BY in view.options)
    succeeded = sum(view.counts.get(JobState.SUCCEEDED, 0) for view in views) - asked_again
    retried = sum(view.total for view in views[1:]) - asked_again
    ended_badly = sum(count for view in views for state, count in view.counts.items() if state in ENDED_BADLY)
    return Summary(
        total=views[0].total,
        succeeded=succeeded,
        failed=max(ended_badly - retried, 0),
        open=any(view.state in OPEN_BATCH_STATES for view in views),
        cost_usd=sum(view.cost_usd for view in views),
        fallbacks=sum(view.fallbacks for view in views),
    )
