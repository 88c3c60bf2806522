"""A run: one input, one output file, and the batches that fill it. Resumed, not repeated.

A run is named by its output's place and by the hash of the input's bytes and of the options that shape the
requests. Run again, it goes on with what is unfinished and tries again what failed and could succeed; a retry is a
new batch that points at the old one, and the newest answer of a line counts.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from models.budgets import amount
from models.ids import new_id
from models.pausing import is_by_failures
from models.records import BatchView, NewBatch, NewJob
from models.settings import Settings
from models.state import OPEN_BATCH_STATES, TERMINAL_STATES, BatchState, JobState
from models.store import Store
from models.weights import USUAL_WEIGHT
from producer.decoding import InputError
from producer.intake import BadLine, Shape, identity_of, read_jobs
from producer.money import spent_its_budget
from producer.preflight import Preflight
from producer.retries import ANSWERED_BY, line_of, retry_failed

SLICE = 2_000
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
    new = NewBatch(batch_id, identity=identity, weight=weight, budget_usd=budget_usd, runs_until=0.0)
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
        lines = read_jobs(
            source,
            shape,
            settings,
            priority=batch.priority,
            expires_at=batch.expires_at,
            rules=rules,
            notes=preflight.notes,
        )
        for good in slices(lines, bad):
            total, endpoint = total + len(good), good[0].chain.endpoint
            preflight.add_all(good)
            if not bad or skip_bad:
                await store.add_jobs(batch.id, good)
        refuse_bad(source, bad, total, skip_bad=skip_bad)
    except BaseException:
        await store.discard_refused(batch.id)
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
    """The newest batch of the run may spend what the others left, and goes on if it had spent its budget.

    Raises InputError when they left nothing.
    """
    *others, newest = await views_of(store, run.batches)
    spent_usd = sum(each.cost_usd for each in others)
    if spent_usd >= budget_usd and newest.state in OPEN_BATCH_STATES:
        raise InputError(
            f"this run has cost {amount(spent_usd)} USD before; name a --budget-usd that is larger than that"
        )
    if await store.grant_batch(newest.id, budget_usd - spent_usd) is not None:
        if spent_its_budget(newest):
            await store.resume_batch(newest.id)


async def views_of(store: Store, batches: Sequence[str]) -> list[BatchView]:
    """Those of the batches that exist, in the given order."""
    views = [await store.batch_view(batch_id) for batch_id in batches]
    return [view for view in views if view is not None]


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
    unpriced_calls: int = 0  # which the cost leaves out

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
        unpriced_calls=sum(view.unpriced_calls for view in views),
    )
