"""Progress of a run, on standard error only."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from understudy.models.jobs.views import BatchView
from understudy.models.state import OPEN_BATCH_STATES
from understudy.producer.number_format import duration, spent, spent_briefly
from understudy.producer.runs.retry_chain import Summary
from understudy.producer.status.split_table import merged, percent


class _Pace(ProgressColumn):
    """Rate, and the time left at that rate."""

    def render(self, task: Task) -> Text:
        per_s = task.fields.get("per_s") or 0.0
        left = task.remaining or 0
        eta = duration(left / per_s) if per_s and left else "–"
        return Text(f"{per_s:6.1f}/s  ETA {eta}" if left else "", style="cyan")


class _Note(ProgressColumn):
    """Cost, failures and the share of each provider; truncated at the page width."""

    def render(self, task: Task) -> Text:
        note = Text.from_markup(task.fields["note"], overflow="ellipsis")
        note.no_wrap = True
        return note


FIGURES_CHARS = 75
"""Width needed next to the bar: counts, rate, time left, cost and failures."""

SHORTEST_BAR, LONGEST_BAR = 5, 30

HEARTBEAT_S = 60.0
"""Seconds. Without a terminal, a line is printed for each 10 % of progress, and after this time without one."""


class Display:
    """A progress bar on a terminal; elsewhere, a line now and then."""

    def __init__(
        self,
        console: Console,
        heartbeat_s: float = HEARTBEAT_S,
        monotonic: Callable[[], float] = time.monotonic,
        local_time: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._console = console
        self._heartbeat_s = heartbeat_s
        self._monotonic = monotonic
        self._local_time = local_time
        bar = min(console.width - FIGURES_CHARS, LONGEST_BAR)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            *([BarColumn(bar, table_column=Column(no_wrap=True))] if bar >= SHORTEST_BAR else []),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}", table_column=Column(no_wrap=True)),
            _Pace(table_column=Column(no_wrap=True)),
            _Note(),
            console=console,
            refresh_per_second=8,
        )
        self._task = self._progress.add_task("starting", total=1, note="", per_s=0.0)
        self._last_share = -1
        self._told_at = float("-inf")

    @contextmanager
    def shown(self) -> Iterator["Display"]:
        if not self._console.is_terminal:
            yield self
            return
        with self._progress:
            yield self

    def say(self, line: str) -> None:
        """Print a message above the bar."""
        self._console.print(escape(line), style="yellow", highlight=False, soft_wrap=not self._console.is_terminal)

    def update(self, summary: Summary, views: Sequence[BatchView], word: str = "running") -> None:
        failed = f"  [red]{summary.failed:,} failed[/red]" if summary.failed else ""
        mix = f"{failed}  {_mix(views)}"
        note = f"{spent_briefly(summary.cost_usd, summary.unpriced_calls)}{mix}"
        per_s = sum(view.recent_per_s for view in views if view.state in OPEN_BATCH_STATES)
        if not self._console.is_terminal:
            self._now_and_then(summary, per_s, f"{spent(summary.cost_usd, summary.unpriced_calls)}{mix}")
        self._progress.update(
            self._task, description=word, completed=summary.done, total=summary.total, note=note, per_s=per_s
        )

    def _now_and_then(self, summary: Summary, per_s: float, note: str) -> None:
        share, now = summary.done * 10 // max(summary.total, 1), self._monotonic()
        if share == self._last_share and now - self._told_at < self._heartbeat_s:
            return
        self._last_share, self._told_at = share, now
        left = summary.total - summary.done
        eta = f"ETA {duration(left / per_s)}  " if per_s and left else ""
        pace = f"{per_s:.1f}/s  {eta}" if left else ""
        line = f"{self._local_time():%H:%M:%S}  {summary.done:,}/{summary.total:,}  {pace}{note}"
        self._console.print(line.rstrip(), highlight=False, soft_wrap=True)


def _mix(views: Sequence[BatchView]) -> str:
    """The share of answers per provider."""
    answered = {row.provider: 0 for row in merged(views)}
    for row in merged(views):
        answered[row.provider] += row.answered
    whole = sum(answered.values())
    return "  ".join(f"{escape(name)} {percent(count, whole)}" for name, count in answered.items() if count)
