"""`understudy run`: a file of prompts in, a file of results out."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from understudy.models.config.settings import LogSettings
from understudy.models.weights import USUAL_WEIGHT
from understudy.producer.cli import options, requests
from understudy.producer.cli.dry_run import dry_run
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.settings import settings_for_calls, settings_from, with_concurrency
from understudy.producer.runs.main_job import RunOptions
from understudy.producer.runs.main_job import run as run_main_job
from understudy.producer.runs.output import check_suffix
from understudy.producer.runs.runs import RunRequest
from understudy.producer.terminal import console

app = typer.Typer()

LOG_OF_RUN = LogSettings(format="text", level="warning")
"""Logging of the workers of `run`, shown between its progress lines."""


@app.command()
def run(
    source: requests.Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the results: .jsonl, .csv or .tsv.")],
    prompt: requests.Prompt = None,
    system: requests.System = None,
    model: requests.Model = None,
    chain: requests.ChainName = None,
    fallback: requests.Fallback = None,
    order: requests.OrderName = None,
    require: requests.Require = None,
    forbid: requests.Forbid = None,
    id_column: requests.IdColumn = None,
    max_tokens: requests.MaxTokens = None,
    temperature: requests.Temperature = None,
    param: requests.Param = None,
    limit: requests.Limit = None,
    skip_bad: requests.SkipBad = False,
    budget_usd: options.BudgetUsd = None,
    update: Annotated[
        bool, typer.Option("--update", help="Ask again lines that changed since they were answered.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also retry bad requests and refused content.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard all answers in this output and ask every line.")
    ] = False,
    csv_safe: options.CsvSafe = False,
    weight: options.Weight = USUAL_WEIGHT,
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    dry: requests.DryRun = False,
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.AsJson = False,
) -> None:
    """Run every prompt of INPUT through its chain of providers and write the results to a file.

    Ctrl-C finishes the calls in flight and stops; a second Ctrl-C stops at once. A run with the same OUTPUT resumes:
    answered lines keep their answers and are not paid for again, even if lines were added, moved or removed, or the
    chain changed. Lines that changed since they were answered are asked again only with --update.
    """
    route = requests.route_of(model, chain, fallback, order, require, forbid)
    with plain_errors():
        shape = requests.shape_of(
            prompt, system, id_column, limit, route, requests.params_of(max_tokens, temperature, param)
        )
        settings = with_concurrency((settings_from if dry else settings_for_calls)(config, data), max_concurrency)
        settings = settings.model_copy(update={"logging": LOG_OF_RUN})
        check_suffix(output, csv_safe=csv_safe)
        if dry:
            dry_run(settings, source, shape, skip_bad, as_json, None if fresh else output, everything)
            return
        with requests.as_file(source) as path:
            asked = RunRequest(path, output, shape, skip_bad, fresh, update, everything, budget_usd, weight, csv_safe)
            code = asyncio.run(run_main_job(settings, RunOptions(asked, config, workers, as_json), console()))
    raise typer.Exit(code)
