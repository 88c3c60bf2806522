"""The answers of a batch by provider and model, as a table and as shares."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from understudy.models.jobs.views import BatchView, DeploymentTally
from understudy.producer.number_format import spent_briefly

MEASURED_ON = 10_000
"""Characters: wide enough for any table."""


def merged(views: Sequence[BatchView]) -> list[DeploymentTally]:
    """The answers by provider and model, summed over a batch and its retries."""
    sums: dict[tuple[str, str], DeploymentTally] = {}
    for tally in (tally for view in views for tally in view.by_deployment):
        row = sums.setdefault((tally.provider, tally.model), DeploymentTally(tally.provider, tally.model))
        row.answered += tally.answered
        row.fallbacks += tally.fallbacks
        row.input_tokens += tally.input_tokens
        row.output_tokens += tally.output_tokens
        row.cost_usd += tally.cost_usd
        row.unpriced_calls += tally.unpriced_calls
        for failure, count in tally.failures.items():
            row.failures[failure] = row.failures.get(failure, 0) + count
    return sorted(sums.values(), key=lambda row: -row.answered)


COLUMNS = ("answers", "share", "fallbacks", "p50", "p95", "cost")
GIVE_WAY = ("p95", "p50", "fallbacks", "share")
"""Columns omitted on a narrow page, in this order, before a name is wrapped."""


def split_table(views: Sequence[BatchView], latency: Mapping[tuple[str, str], tuple[float, float]]) -> RenderableType:
    """Per provider and model: answers, their share, fallbacks, latency and cost; below, the failed calls by class."""
    rows = merged(views)
    failed = [_failed_calls(row) for row in rows if row.failures]
    table = _Split(rows, latency)
    return Group(table, Text("failed calls: " + "; ".join(failed) + "\n")) if failed else table


class _Split:
    """A table that fits the page."""

    def __init__(self, rows: Sequence[DeploymentTally], latency: Mapping[tuple[str, str], tuple[float, float]]) -> None:
        self._rows = rows
        self._latency = latency

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left_out = 0
        while True:
            table = self._table([name for name in COLUMNS if name not in GIVE_WAY[:left_out]])
            width = console.measure(table, options=options.update(max_width=MEASURED_ON)).maximum
            if width <= options.max_width or left_out == len(GIVE_WAY):
                yield table
                return
            left_out += 1

    def _table(self, columns: Sequence[str]) -> Table:
        answers = sum(row.answered for row in self._rows)
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("provider", "model"):
            table.add_column(name, overflow="fold")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self._rows:
            p50, p95 = self._latency.get((row.provider, row.model), (None, None))
            cells = {
                "answers": f"{row.answered:,}",
                "share": percent(row.answered, answers),
                "fallbacks": f"{row.fallbacks:,}",
                "p50": _seconds(p50),
                "p95": _seconds(p95),
                "cost": spent_briefly(row.cost_usd, row.unpriced_calls),
            }
            table.add_row(escape(row.provider), escape(row.model), *(cells[name] for name in columns))
        return table


def percent(part: int, whole: int) -> str:
    """`12%`; `<1%` and `>99%` for shares that would round to nothing or all."""
    if not whole:
        return "–"
    share = part * 100 / whole
    return "<1%" if 0 < share < 1 else ">99%" if 99 < share < 100 else f"{share:.0f}%"


def _seconds(ms: float | None) -> str:
    return "–" if ms is None else f"{ms / 1000:.2f} s"


def _failed_calls(row: DeploymentTally) -> str:
    counts = sorted(row.failures.items(), key=lambda item: -item[1])
    return f"{row.provider} " + ", ".join(f"{count:,} {name}" for name, count in counts)
