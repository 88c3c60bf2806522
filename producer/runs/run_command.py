"""`understudy run` from start to end: read the input, start workers, show progress, write the output, print a
summary."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson
from rich.console import Console
from rich.markup import escape

from understudy.models.config.settings import Settings
from understudy.models.errors import ALL_SUCCEEDED, INTERRUPTED, SOME_FAILED, UNREACHABLE
from understudy.models.jobs.pause_reasons import BY_FAILURES, PauseKind
from understudy.models.jobs.views import BatchView
from understudy.models.objects.batch import deployment_shares
from understudy.models.state import OPEN_BATCH_STATES, JobState
from understudy.models.store import Store, StoreOutage
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import csv_form
from understudy.producer.number_format import counted, spent
from understudy.producer.processes.health_file import reporting
from understudy.producer.processes.stack import Workers, open_stack
from understudy.producer.runs.budget_grants import spent_its_budget
from understudy.producer.runs.comparison import Comparison
from understudy.producer.runs.lease import BatchLease, exclusive_run
from understudy.producer.runs.output import check_suffix, is_csv, write_output
from understudy.producer.runs.resume import begin
from understudy.producer.runs.retry_chain import Summary, views_of
from understudy.producer.runs.runs import Run, RunRequest, final_summary, refuse_bad_start
from understudy.producer.status.failed_calls import failure_examples
from understudy.producer.status.progress import Display
from understudy.producer.status.split_table import merged, split_table
from understudy.producer.status.standstill import STILL_AFTER_S, Standstill
from understudy.producer.status.waiting import blocked_by, first_paused

POLL_S = 0.25
BLOCKED_LOOKS = 4
"""A run stops for disabled credentials after this many checks in a row find nothing else to wait for."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    asked: RunRequest
    config: Path | None
    workers: int = 1
    as_json: bool = False
    still_after_s: float = STILL_AFTER_S  # seconds without an answer before it reports what it waits for


class _Interrupts:
    """Ctrl-C: the first drains, the second stops. SIGTERM counts as well."""

    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()
        self.workers: Workers | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        self.count += 1
        self.happened.set()
        if self.workers is not None:
            self.workers.drain()


async def run(settings: Settings, options: RunOptions, console: Console) -> int:
    """Returns the exit code. Raises errors that `producer.cli.errors` turns into one sentence."""
    asked = options.asked
    _check_output(asked.output, asked.source)
    form = csv_form(asked.source, asked.shape, asked.output, safe=asked.csv_safe)
    refuse_bad_start(settings, asked.source, asked.shape, skip_bad=asked.skip_bad)
    display = Display(console)
    async with open_stack(settings, display.say) as stack, exclusive_run(stack.store, asked, display.say):
        interrupts = _Interrupts()
        await _enable_credentials(stack.store)
        job = await begin(stack.store, settings, asked)
        _say_what_begins(display, asked, job)
        over = _Over()
        if job.is_open and not interrupts.count:
            workers = Workers(stack, options.workers, options.config, display.say)
            still = Standstill(settings, stack.store, display.say, options.still_after_s)
            interrupts.workers = workers
            with display.shown():
                health = reporting(settings.health_file, workers.trouble)
                async with BatchLease(stack.store, job.batches) as lease, health, workers:
                    watch = _Watch(stack.store, settings, job, display, workers, interrupts, lease, still)
                    over = await watch.until_over()
        views = await views_of(stack.store, job.batches)
        total = await final_summary(stack.store, job, views)
        if total.open:
            return _stopped_early(console, asked, total, over)
        lines = await write_output(stack.store.outputs.of_run(job.id), asked.output, form)
        latency = await stack.store.jobs.latency_percentiles(job.batches[-1])
        if options.as_json:
            _print_json(asked, job, total, views)
        console.print()
        console.print(split_table(views, latency))
        for line in await failure_examples(stack.store, views):
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
        console.print(_last_words(asked, total, lines, job), highlight=False, soft_wrap=not console.is_terminal)
        return SOME_FAILED if total.failed else ALL_SUCCEEDED


class _Over(NamedTuple):
    """Watching has ended. `blocked`: the cause that only a person can fix, if that is why; `kind`: if its batch is
    paused for it."""

    blocked: str | None = None
    kind: PauseKind | None = None


@dataclass(slots=True)
class _Watch:
    """Shows progress until the run ends, is interrupted, or is blocked until a person acts."""

    store: Store
    settings: Settings
    job: Run
    display: Display
    workers: Workers
    interrupts: _Interrupts
    lease: BatchLease
    still: Standstill
    blocked_looks: int = 0
    away: bool = False  # whether the ledger was unreachable at the last look

    async def until_over(self) -> _Over:
        ended = asyncio.create_task(self.workers.ended())
        try:
            while (over := await self._look_through_outages(ended)) is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(ended), POLL_S)
            return over
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _look_through_outages(self, ended: asyncio.Task[None]) -> _Over | None:
        """While the ledger is unreachable, the workers keep the answers; the run lasts as long as they do."""
        try:
            over = await self._look(ended)
            self.away = False
        except StoreOutage as outage:
            if ended.done():
                raise
            if not self.away:
                self.display.say(f"the ledger is unreachable; workers keep new answers until it is back: {outage}")
            self.away, over = True, None
        return over

    async def _look(self, ended: asyncio.Task[None]) -> _Over | None:
        """None: continue watching."""
        views = await views_of(self.store, self.job.batches)
        now = self.job.summary(views)
        self.display.update(now, views, "draining" if self.interrupts.count else "running")
        if not now.open:
            return _Over()
        if ended.done():
            ended.result()
            return _Over()
        if self.interrupts.count:
            await self.lease.stop()
            return None
        await self.lease.renew()
        if spent := next(filter(spent_its_budget, views), None):
            return _Over(spent.paused, spent.pause_kind)
        held = first_paused(views)
        if held is not None and held.pause_kind in BY_FAILURES and not _moves(views):
            return _Over(held.paused, held.pause_kind)
        await self.still.look(views, now.done)
        reason = await blocked_by(self.store, self.settings, self.job.batches)
        self.blocked_looks = self.blocked_looks + 1 if reason else 0
        return _Over(reason) if reason and self.blocked_looks >= BLOCKED_LOOKS else None


def _moves(views: Sequence[BatchView]) -> bool:
    """Whether any of these batches has calls in flight or may start new ones."""
    open_ones = [view for view in views if view.state in OPEN_BATCH_STATES]
    return any(not view.paused or view.counts[JobState.RUNNING] for view in open_ones)


async def _enable_credentials(store: Store) -> None:
    """Enable all credentials: a person who runs the command again has fixed the cause, or wants to see it again."""
    for row in await store.credentials.listed():
        await store.credentials.enable(row.provider, row.key)


def _check_output(output: Path, source: Path) -> None:
    """Raises InputError when results cannot be written to this path."""
    check_suffix(output)
    if output.exists() and output.samefile(source):
        raise InputError(f"{output} is the input; choose another file for the results")
    if output.is_dir():
        raise InputError(f"{output} is a folder; give a file name for the results")
    if not output.resolve().parent.is_dir():
        raise InputError(f"the output folder {output.parent} does not exist")
    if not os.access(output.resolve().parent, os.W_OK):
        raise InputError(f"the output folder {output.parent} is not writable")


def _say_what_begins(display: Display, asked: RunRequest, job: Run) -> None:
    if job.skipped:
        display.say(f"skipping {counted(len(job.skipped), 'bad line')} of {asked.source.name}:")
        for bad in job.skipped:
            display.say(f"  line {bad.line}: {bad.reason}")
    if job.forgotten is not None:
        what = counted(job.forgotten.succeeded, "answer")
        cost = spent(job.forgotten.cost_usd, job.forgotten.unpriced_calls)
        display.say(f"--fresh: discarded {what} in {asked.output}, which cost {cost}")
    if job.compared is not None:
        _say_what_is_resumed(display, job.compared, job.batches[-1])
    if job.preflight is not None:
        for said in (job.preflight.expected, *job.preflight.findings):
            display.say(said)


def _say_what_is_resumed(display: Display, compared: Comparison, batch_id: str) -> None:
    """Say which lines keep their answers, which are asked now, and which are not."""
    done = "" if compared.to_ask or compared.left else "; nothing left to ask"
    display.say(f"resuming: {compared.words}{done}")
    if compared.refused:
        they = "it is" if compared.refused == 1 else "they are"
        display.say(
            f"{counted(compared.refused, 'line')} failed as a bad request, refused content or a crash; "
            f"{they} not retried unless you add --all"
        )
    if compared.elsewhere:
        display.say(
            f"kept {counted(compared.elsewhere, 'answer')} from an earlier chain; --fresh asks every line again, "
            f"`understudy retry {batch_id} --answered-by PROVIDER` the lines that one provider answered"
        )


def _stopped_early(console: Console, asked: RunRequest, total: Summary, over: _Over) -> int:
    console.print(_kept(asked, total), highlight=False, markup=False, soft_wrap=not console.is_terminal)
    if over.blocked:
        failing = over.kind in BY_FAILURES
        look = " `understudy attempts latest` shows the answers." if failing else ""
        act = (
            "Run it again with a larger --budget-usd" if over.kind is PauseKind.BUDGET else "Fix that and run it again"
        )
        words = f"Stopped: {over.blocked}.{look} {act}; answers so far are kept."
        console.print(words, highlight=False, markup=False, soft_wrap=not console.is_terminal)
        return UNREACHABLE
    console.print("Run the same command again to continue; until then, nothing more is sent.", highlight=False)
    return INTERRUPTED


def _kept(asked: RunRequest, total: Summary) -> str:
    failed = f", {total.failed:,} failed" if total.failed else ""
    if not total.done:
        return f"0 of {total.total:,} answered."
    look = f"understudy results latest{' --csv' if is_csv(asked.output) else ''}"
    return f"{total.succeeded:,} of {total.total:,} answered{failed}, all saved; `{look}` shows the results so far."


def _last_words(asked: RunRequest, total: Summary, lines: int, job: Run) -> str:
    failed = f", [red]{total.failed:,} failed[/red]" if total.failed else ""
    skipped = f", {counted(len(job.skipped), 'bad line')} skipped" if job.skipped else ""
    cost = spent(total.cost_usd, total.unpriced_calls)
    results = f"{counted(lines, 'result')} {'is' if lines == 1 else 'are'}"
    return (
        f"{total.succeeded:,} of {total.total:,} succeeded{failed}{skipped}, {total.fallbacks:,} via a fallback, "
        f"{cost}. {results} in [bold]{escape(str(asked.output))}[/bold]"
    )


def _print_json(asked: RunRequest, job: Run, total: Summary, views: Sequence[BatchView]) -> None:
    document = {
        "batches": job.batches,
        "output": str(asked.output),
        "total": total.total,
        "succeeded": total.succeeded,
        "failed": total.failed,
        "skipped_lines": [bad.line for bad in job.skipped],
        "fallbacks": total.fallbacks,
        "cost_usd": total.cost_usd if total.cost_usd or not total.unpriced_calls else None,
        "unpriced_calls": total.unpriced_calls,
        "by_provider": deployment_shares(merged(views)),
    }
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
