"""A run: an output file, the lines of its input, and the batches that answer them. Resumed, not repeated.

A run is identified by the path of its output and resumed line by line: a line whose request was already answered for
this output keeps that answer. New, changed and unanswered lines are asked in a new batch, unless the previous batch
contains exactly these.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from understudy.models.config.settings import Settings
from understudy.models.errors import WrongUse
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch, NewJob
from understudy.models.jobs.views import BatchView
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.models.state import OPEN_BATCH_STATES, BatchState, JobState
from understudy.models.store import Store
from understudy.models.store.work.runs import Standing
from understudy.models.tenants import USUAL_WEIGHT
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ingest.intake import BadLine, JobReader, read_jobs
from understudy.producer.number_format import counted
from understudy.producer.runs.comparison import Comparison, lines_of
from understudy.producer.runs.preflight import Preflight
from understudy.producer.runs.retry_chain import ENDED_BADLY, Summary, views_of

SLICE = 2_000
FIRST_VERSION = 1
BAD_LINES_SHOWN = 20


class OtherRun(WrongUse):
    """The output contains answers that would be lost. The message is one sentence."""


class BadInput(WrongUse):
    """Lines that cannot become jobs; nothing was accepted. The message lists the first ones."""

    def __init__(self, bad: list[BadLine], good: int) -> None:
        super().__init__(_bad_lines(bad, good))
        self.bad = bad
        self.good = good


def _bad_lines(bad: list[BadLine], good: int) -> str:
    reasons = {each.reason for each in bad}
    if len(reasons) == 1 and not good:
        return f"{reasons.pop()} (every line); nothing was sent"
    lines = [f"{counted(len(bad), 'bad line')}; nothing was sent:"]
    lines += [f"  line {each.line}: {each.reason}" for each in bad[:BAD_LINES_SHOWN]]
    if len(bad) > BAD_LINES_SHOWN:
        lines.append(f"  and {len(bad) - BAD_LINES_SHOWN:,} more")
    if good:
        fine = f"{counted(good, 'line')} {'is' if good == 1 else 'are'} fine"
        them = "it" if len(bad) == 1 else "them"
        lines.append(f"Fix {them}, or skip {them} with --skip-bad ({fine})")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The options of `understudy run`.

    `update`: ask lines again whose request changed since they were answered. `everything`: also retry refused requests.
    `budget_usd` covers all batches of the run; None keeps the budget of an existing run.
    """

    source: Path
    output: Path
    shape: Shape
    skip_bad: bool = False
    fresh: bool = False
    update: bool = False
    everything: bool = False
    budget_usd: float | None = None
    weight: float = USUAL_WEIGHT
    csv_safe: bool = False

    @property
    def run_id(self) -> str:
        return hashlib.sha256(str(self.output.resolve()).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Run:
    """A run as it starts. `batches`: all batches ever accepted for it, oldest first.

    `compared`: of an existing run. `preflight`: of the lines accepted now.
    """

    id: str
    batches: list[str]
    standing: Standing
    views: Mapping[str, BatchView]  # of its batches, as of `standing`
    skipped: list[BadLine] = field(default_factory=list)
    compared: Comparison | None = None
    preflight: Preflight | None = None
    forgotten: Summary | None = None  # with --fresh: the discarded run

    @property
    def is_open(self) -> bool:
        return any(view.state in OPEN_BATCH_STATES for view in self.views.values())

    def summary(self, views: Sequence[BatchView]) -> Summary:
        """Its progress, derived from the changes of its batches since the start, because counting lines takes too
        long."""

        def moved(view: BatchView, states: Iterable[JobState]) -> int:
            before = self.views[view.id].counts if view.id in self.views else {}
            return sum(view.counts.get(state, 0) - before.get(state, 0) for state in states)

        def fallbacks(view: BatchView) -> int:
            return view.fallbacks - (self.views[view.id].fallbacks if view.id in self.views else 0)

        return Summary(
            total=self.standing.total,
            succeeded=self.standing.succeeded + sum(moved(view, [JobState.SUCCEEDED]) for view in views),
            failed=self.standing.failed + sum(moved(view, ENDED_BADLY) for view in views),
            open=any(view.state in OPEN_BATCH_STATES for view in views),
            cost_usd=sum(view.cost_usd for view in views),
            fallbacks=self.standing.fallbacks + sum(fallbacks(view) for view in views),
            unpriced_calls=sum(view.unpriced_calls for view in views),
        )


async def run_as_it_stands(store: Store, run_id: str) -> Run:
    """A run with its accepted batches. Batches being closed no longer affect its progress."""
    views = await views_of(store, await store.runs.batches_of(run_id))
    accepted = {view.id: view for view in views if view.state is not BatchState.VALIDATING}
    return Run(run_id, list(accepted), await store.runs.standing(run_id), accepted)


async def final_summary(store: Store, run: Run, views: Sequence[BatchView]) -> Summary:
    """The progress of a run, counted line by line."""
    run.standing, run.views = await store.runs.standing(run.id), {view.id: view for view in views}
    return run.summary(views)


async def accept_run(store: Store, settings: Settings, asked: RunRequest) -> Run:
    """Accept a run for a new output. Raises BadInput, InputError."""
    new = NewBatch(
        new_id("batch"), weight=asked.weight, budget_usd=asked.budget_usd, runs_until=0.0, source=asked.source.name
    )
    new.identity = f"{asked.run_id}-{new.id}"
    preflight = Preflight(settings)
    await store.runs.forget(asked.run_id)
    try:
        skipped = await accept(
            store,
            settings,
            asked.source,
            asked.shape,
            new,
            skip_bad=asked.skip_bad,
            preflight=preflight,
            run_id=asked.run_id,
        )
    except BaseException:
        await store.runs.forget(asked.run_id)
        raise
    run = await run_as_it_stands(store, asked.run_id)
    run.skipped, run.preflight = skipped, preflight
    return run


async def accept(
    store: Store,
    settings: Settings,
    source: Path,
    shape: Shape,
    batch: NewBatch,
    *,
    skip_bad: bool,
    preflight: Preflight | None = None,
    run_id: str | None = None,
) -> list[BadLine]:
    """Accept an input as one batch, all or nothing. Returns the bad lines that were skipped.

    `preflight` sees each good line. `run_id`: they become the lines of this run. Raises BadInput for bad lines without
    `skip_bad`, or when no line is good; InputError.
    """
    batch.source = batch.source or source.name
    batch.expires_at = batch.expires_at or await store.now() + settings.deadline_s
    await store.intake.create_batch(batch)
    bad: list[BadLine] = []
    preflight, total, endpoint = preflight or Preflight(settings), 0, None
    try:
        rules = (await store.tenants.rules(batch.tenant)).with_budget(batch.budget_usd)
        reader = JobReader(shape, settings, priority=batch.priority, expires_at=batch.expires_at, rules=rules)
        for good in slices(read_jobs(source, reader, preflight.notes), bad):
            total, endpoint = total + len(good), good[0].chain.endpoint
            preflight.add_all(good)
            if not bad or skip_bad:
                await store.intake.add_jobs(batch.id, good)
                if run_id is not None:
                    lines_now = lines_of(good, total - len(good) + 1, with_jobs=True)
                    await store.runs.add_lines(run_id, FIRST_VERSION, lines_now)
        refuse_bad(source, bad, total, skip_bad=skip_bad)
    except BaseException:
        await store.retention.discard_refused(batch.id)
        raise
    if run_id is not None:
        await store.runs.put_version(run_id, FIRST_VERSION)
    await store.intake.open_batch(batch.id, total, endpoint, preflight.forecast.estimate)
    return bad


def refuse_bad_start(settings: Settings, source: Path, shape: Shape, *, skip_bad: bool) -> None:
    """Reject an input whose first line is bad before a data folder is created. Raises BadInput, InputError.

    These are typical mistakes of new users: no key, a misspelt model, the wrong format.
    """
    lines = read_jobs(source, JobReader(shape, settings))
    if not skip_bad and not isinstance(next(lines, None), NewJob):
        refuse_bad_input(settings, source, shape, skip_bad=False)


def refuse_bad_input(
    settings: Settings, source: Path, shape: Shape, *, skip_bad: bool, rules: Rules = NO_RULES
) -> None:
    """Validate the whole input before discarding anything for it. Raises BadInput, InputError."""
    bad: list[BadLine] = []
    lines = read_jobs(source, JobReader(shape, settings, rules=rules))
    refuse_bad(source, bad, sum(map(len, slices(lines, bad))), skip_bad=skip_bad)


def refuse_bad(source: Path, bad: list[BadLine], good: int, *, skip_bad: bool) -> None:
    """Raises BadInput for bad lines without `skip_bad`, or when no line is good; InputError for an empty input."""
    if not bad and not good:
        raise InputError(f"{source} has no lines; nothing was sent")
    if (bad and not skip_bad) or not good:
        raise BadInput(bad, good)


def slices(lines: Iterable[NewJob | BadLine], bad: list[BadLine]) -> Iterable[list[NewJob]]:
    """Good lines in slices; bad ones are appended to `bad`."""
    iterator = iter(lines)
    while chunk := list(islice(iterator, SLICE)):
        bad.extend(line for line in chunk if isinstance(line, BadLine))
        if good := [line for line in chunk if isinstance(line, NewJob)]:
            yield good
