"""Batches, jobs and provider calls as the commands show them: documents for --json, text and tables otherwise."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import orjson
from rich.markup import escape
from rich.table import Table

from understudy.models.costs.budgets import amount
from understudy.models.jobs.pace import eta_s
from understudy.models.jobs.pause_reasons import PauseKind
from understudy.models.jobs.views import BatchView, JobView
from understudy.models.objects.attempt import AttemptObject
from understudy.models.objects.job import state_of
from understudy.models.state import OPEN_BATCH_STATES, TERMINAL_STATES, BatchState, JobState
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.number_format import ago, counted, dollars, duration, spent, spent_briefly
from understudy.producer.runs.output import error_text, output_line, row_of_job
from understudy.producer.runs.retry_chain import summary
from understudy.producer.status.split_table import percent, split_table
from understudy.producer.status.waiting import resume_advice
from understudy.producer.terminal import output, say
from understudy.producer.terminal import page as page

T = TypeVar("T")

WIDE_CHARS = 110
"""Columns beyond those that fit an 80-column terminal are shown from this width on."""

VERY_WIDE_CHARS = 160
"""Width from which provider calls are shown as a table: it has ten columns."""


def print_json(document: object) -> None:
    output().write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE).decode())


def print_rows(
    rows: Sequence[T],
    as_json: bool,
    as_object: Callable[[T], object],
    page: Callable[[Sequence[T]], None],
    empty: str,
) -> None:
    """A list as JSON lines or, with `page`, for people. `empty`: what to say without any."""
    if as_json:
        for row in rows:
            print_json(as_object(row))
    elif rows:
        page(rows)
    else:
        say(empty)


def print_id(id_: str, as_json: bool, skipped_lines: Sequence[int] = ()) -> None:
    """Print the id of an accepted job or batch."""
    if as_json:
        print_json({"id": id_, "skipped_lines": skipped_lines})
    else:
        sys.stdout.write(f"{id_}\n")


def print_batch(
    view: BatchView,
    retries: Sequence[str],
    why: str,
    latency: Mapping[tuple[str, str], tuple[float, float]],
    reserved_usd: float | None = None,
) -> None:
    out, now, counts = page(), time.time(), view.counts
    of = f", retry of {view.retry_of}" if view.retry_of else ""
    of += f", tenant {escape(view.tenant)}" if view.tenant != DEFAULT_TENANT else ""
    out.print(f"[bold]{view.id}[/bold]  {_state(view)}  {escape(view.source)} ({view.priority.queue}{of})")
    said = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    out.print(f"{counted(view.total, 'job')}: {said or 'none'}")
    facts = [_cost(view), *_fallbacks(view)]
    if view.state in OPEN_BATCH_STATES:
        left = eta_s(view)
        facts.insert(0, f"{view.recent_per_s:.1f}/s" + (f", about {duration(left)} left" if left else ""))
        facts.append(f"deadline in {duration(max(view.expires_at - now, 0))}")
    elif view.ended_at:
        facts.append(f"took {duration(view.ended_at - view.created_at)}, ended {ago(view.ended_at, now)}")
    if view.budget_usd is not None:
        held = f", {amount(reserved_usd)} reserved for calls in flight" if reserved_usd else ""
        facts.append(f"budget {amount(view.budget_usd)} USD{held}")
    out.print("; ".join(facts))
    if view.paused and view.state in OPEN_BATCH_STATES:
        out.print(f"[yellow]{escape(resume_advice(view))}[/yellow]")
    if why:
        out.print(f"[yellow]{escape(why)}[/yellow]")
    for reason, count in view.waits:
        out.print(f"{count:,} put back: {escape(reason)}")
    if retries:
        out.print(f"retried in {', '.join(retries)}")
    if view.by_deployment:
        out.print(split_table([view], latency))


def _fallbacks(view: BatchView) -> list[str]:
    answered = view.counts.get(JobState.SUCCEEDED, 0)
    if not answered:
        return []
    return [f"{view.fallbacks:,} of {answered:,} answers from a fallback ({percent(view.fallbacks, answered)})"]


def _cost(view: BatchView) -> str:
    """Spent, out of the estimate."""
    cost = spent(view.cost_usd, view.unpriced_calls)
    if view.estimated_usd is None:
        return cost
    unpriced = f", excluding {counted(view.unpriced_lines, 'line')} of unknown price" if view.unpriced_lines else ""
    return f"{cost} of about {dollars(view.estimated_usd)} expected{unpriced}"


def _state(view: BatchView) -> str:
    if view.pause_kind is PauseKind.STOPPED:
        return "stopped"
    if view.paused and view.state in OPEN_BATCH_STATES:
        return f"{view.state}, paused ({escape(view.paused)})"
    if view.blocked and view.state in OPEN_BATCH_STATES:
        return f"{view.state}, needs attention ({escape(view.blocked)})"
    return str(view.state)


BATCH_ID_CHARS = 32


def batches_table(views: Sequence[BatchView]) -> Table:
    """Some columns are omitted on a narrow page. The tenant is shown if there are several."""
    wide = page().width >= WIDE_CHARS
    tenants = {view.tenant for view in views} != {DEFAULT_TENANT}
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("batch", no_wrap=True, min_width=BATCH_ID_CHARS)  # never truncated, because people copy it
    table.add_column("state", overflow="fold", min_width=len(BatchState.IN_PROGRESS))
    if tenants:
        table.add_column("tenant", overflow="fold")
    if wide:
        table.add_column("source", overflow="ellipsis", no_wrap=True)
    for name in ("done", "total", "failed", *(("rate", "cost", "submitted") if wide else ())):
        table.add_column(name, justify="right", no_wrap=True)
    now = time.time()
    for view in views:
        sums = summary([view])
        rate = f"{view.recent_per_s:.1f}/s" if view.state in OPEN_BATCH_STATES else ""
        more = (rate, spent_briefly(view.cost_usd, view.unpriced_calls), ago(view.created_at, now)) if wide else ()
        counts = (f"{sums.done:,}", f"{view.total:,}", f"{sums.failed:,}")
        whose = (escape(view.tenant),) if tenants else ()
        source = (escape(view.source),) if wide else ()
        table.add_row(view.id, _state(view), *whose, *source, *counts, *more)
    return table


def print_job(view: JobView, why: str | None) -> None:
    """`why`: what it waits for, as a sentence."""
    out, row = page(), row_of_job(view)
    batch = f" of {view.batch_id}" if view.batch_id else ""
    name = f"  {escape(' '.join(row.custom_id.split()))}" if row.custom_id != row.job_id else ""
    out.print(f"[bold]{row.job_id}[/bold]  {state_of(view)}{name}{batch}")
    if why:
        out.print(f"[yellow]{escape(why)}[/yellow]")
    if row.state in TERMINAL_STATES - {JobState.SUCCEEDED}:
        out.print(f"[red]{escape(error_text(output_line(row)))}[/red]")
    if view.calls:
        print_attempts(view.calls)


def print_attempts(rows: Sequence[AttemptObject]) -> None:
    """A table on a wide page; otherwise two lines per call, so that ids can be copied."""
    out = page()
    if out.width >= VERY_WIDE_CHARS:
        out.print(attempts_table(rows))
        return
    for row in rows:
        for line in _attempt_lines(row):
            out.print(line, markup=False)


def _attempt_lines(row: AttemptObject) -> tuple[str, str]:
    status = f" {row['status']}" if row["status"] else ""
    outcome = f"{row['failure'] or 'answered'}{status}"
    facts = (outcome, f"{row['latency_ms'] / 1000:.2f} s", _call_cost(row), f"key {row['key']}")
    made_at = datetime.fromtimestamp(row["started_at"]).strftime("%m-%d %H:%M:%S")
    message = " ".join((row["message"] or "").split())
    return f"{made_at} {row['provider']}/{row['model']}: {', '.join(facts)}", f"  {row['job_id']} {message}".rstrip()


def _call_cost(row: AttemptObject) -> str:
    return "cost unknown" if row["cost_usd"] is None else f"${row['cost_usd']:.6f}"


def attempts_table(rows: Sequence[AttemptObject]) -> Table:
    table = new_table("time", "job", "provider", "model", "key", "outcome")
    table.columns[1].no_wrap = True  # never truncated, because people copy it
    for name in ("status", "took", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("message", overflow="fold", ratio=1)
    for row in rows:
        table.add_row(
            datetime.fromtimestamp(row["started_at"]).strftime("%Y-%m-%d %H:%M:%S"),
            row["job_id"],
            escape(row["provider"]),
            escape(row["model"]),
            escape(row["key"]),
            row["failure"] or "answered",
            str(row["status"] or ""),
            f"{row['latency_ms'] / 1000:.2f} s",
            _call_cost(row),
            escape(row["message"] or ""),
        )
    return table


def new_table(*columns: str) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def limits_text(row: Mapping[str, Any]) -> str:
    """The configured limits of a row; others are learned from the provider's answers."""
    words = {
        **{"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min"},
        **{"requests_per_day": "requests/day", "tokens_per_day": "tokens/day", "max_in_flight": "in flight"},
    }
    return ", ".join(f"{row[name]:,} {word}" for name, word in words.items() if row.get(name)) or "learned"
