"""`--dry-run`: read and check every line as if it were submitted; store nothing, call no provider."""

import asyncio
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from understudy.models.config.settings import Settings
from understudy.models.costs.forecast import ChainForecast, StepForecast
from understudy.models.request.tokens import TYPICAL_OUTPUT_TOKENS
from understudy.models.routing.data_rules import NO_RULES, Rules
from understudy.producer.cli import requests
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ingest.intake import BadLine, JobReader, read_jobs
from understudy.producer.ledger import NoLedger, open_ledger
from understudy.producer.number_format import counted, dollars
from understudy.producer.processes.data_folder_lock import DataFolderBusy, data_lock
from understudy.producer.runs.preflight import Preflight
from understudy.producer.runs.resume import Preview, preview_of
from understudy.producer.runs.runs import RunRequest, refuse_bad, slices
from understudy.producer.status import printing as show
from understudy.producer.terminal import say

CHAINS_SHOWN = 5
TENANT = "default"


def dry_run(
    settings: Settings,
    source: Path,
    shape: Shape,
    skip_bad: bool,
    as_json: bool,
    output: Path | None = None,
    everything: bool = False,
) -> None:
    """Print what a run would do: for all lines, or, when `output` exists from an earlier run, for the lines still to be
    asked (`everything` as in RunRequest). Raises BadInput, InputError."""
    with requests.as_file(source) as path:
        asked = None if output is None else RunRequest(path, output, shape, skip_bad, everything=everything)
        found = asyncio.run(_resumed(settings, asked)) if asked and settings.redis_url is None else None
        preview = found or _all_lines(settings, source, path, shape, skip_bad)
    for each in preview.bad:
        say(f"line {each.line} would be skipped: {each.reason}")
    name = "standard input" if str(source) == "-" else source.name
    if as_json:
        show.print_json(_document(name, preview))
    else:
        _print(name, preview)


def _all_lines(settings: Settings, source: Path, path: Path, shape: Shape, skip_bad: bool) -> Preview:
    rules = asyncio.run(_rules(settings))
    bad: list[BadLine] = []
    preflight = Preflight(settings, every_step=True)
    for good in slices(read_jobs(path, JobReader(shape, settings, rules=rules), preflight.notes), bad):
        preflight.add_all(good)
    refuse_bad(source, bad, preflight.forecast.lines, skip_bad=skip_bad)
    return Preview(preflight, bad)


async def _resumed(settings: Settings, asked: RunRequest) -> Preview | None:
    """What a resumed run would ask. None: no earlier run wrote this output, or another command is using the data
    folder, possibly that very run. (With a shared Redis there is no way to know, so there all lines are counted.)"""
    try:
        async with open_ledger(settings) as store:
            with data_lock(settings.data):
                return await preview_of(store, settings, asked)
    except NoLedger:
        return None
    except DataFolderBusy as busy:
        say(f"counting all lines, including answered ones: {busy}")
        return None


async def _rules(settings: Settings) -> Rules:
    """The tenant's rules, which apply to every line; none without a ledger."""
    try:
        async with open_ledger(settings) as store:
            return await store.tenants.rules(TENANT)
    except NoLedger:
        return NO_RULES


def _print(name: str, preview: Preview) -> None:
    preflight = preview.preflight
    out, forecast = show.page(), preflight.forecast
    if preview.compared is not None:
        out.print(f"resuming: {escape(preview.compared.words)}")
    if not forecast.lines:
        out.print(f"[bold]{escape(name)}[/bold]: nothing left to ask")
        return
    out.print(f"[bold]{escape(name)}[/bold]: {escape(preflight.expected)}")
    length = "as long as the answers so far" if forecast.length_known else f"at most {TYPICAL_OUTPUT_TOKENS} per line"
    out.print(f"about {forecast.input_tokens:,} input and {forecast.output_tokens:,} output tokens (output: {length})")
    for chain in forecast.chains[:CHAINS_SHOWN]:
        out.print()
        out.print(_table(chain))
    if len(forecast.chains) > CHAINS_SHOWN:
        rest = forecast.chains[CHAINS_SHOWN:]
        lines = counted(sum(chain.lines for chain in rest), "line")
        out.print(f"\nand {lines} with {counted(len(rest), 'other chain')}")
    for finding in preflight.findings:
        out.print(f"\n[yellow]{escape(finding)}[/yellow]")
    out.print("\nNothing was sent or stored.")


def _table(chain: ChainForecast) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(f"{counted(chain.lines, 'line')} with these steps", overflow="fold")
    table.add_column("asked first", justify="right", no_wrap=True)
    table.add_column("if it answers all", justify="right", no_wrap=True)
    for step in chain.steps:
        table.add_row(escape(step.step), f"{step.first:,}", _cost_of_all(step, chain))
    return table


def _cost_of_all(step: StepForecast, chain: ChainForecast) -> str:
    return "price unknown" if step.unpriced_lines == chain.lines else dollars(step.cost_usd)


def _document(name: str, preview: Preview) -> dict[str, Any]:
    preflight = preview.preflight
    forecast = preflight.forecast
    return {
        "dry_run": True,
        "source": name,
        "lines": forecast.lines,
        "skipped_lines": [each.line for each in preview.bad],
        "resumed": None if preview.compared is None else preview.compared.counts,
        "input_tokens": forecast.input_tokens,
        "output_tokens": forecast.output_tokens,
        "estimated_cost_usd": forecast.estimate.usd,
        "unpriced_lines": forecast.estimate.unpriced_lines,
        "chains": [_chain(each) for each in forecast.chains],
        "unfit_lines": preflight.unfit,
        "findings": preflight.findings,
    }


def _chain(chain: ChainForecast) -> dict[str, Any]:
    return {
        "lines": chain.lines,
        "estimated_cost_usd": chain.cost_usd if chain.priced_lines or not chain.unpriced_lines else None,
        "steps": [
            {
                "step": step.step,
                "asked_first": step.first,
                "cost_usd_if_it_answers_all": step.cost_usd if step.unpriced_lines < chain.lines else None,
                "unpriced_lines": step.unpriced_lines,
            }
            for step in chain.steps
        ],
    }
