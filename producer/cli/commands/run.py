"""`understudy run`: a file of prompts in, a file of results out."""

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from understudy.models.tenants import USUAL_WEIGHT
from understudy.producer.cli import options, requests
from understudy.producer.cli.dry_run import dry_run
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.installation import HERE, Installation, with_options
from understudy.producer.runs.output import check_suffix
from understudy.producer.runs.run_command import RunOptions
from understudy.producer.runs.run_command import run as run_main_job
from understudy.producer.runs.runs import RunRequest
from understudy.producer.terminal import console

app = options.Commands()


@dataclass(frozen=True, slots=True)
class Policy:
    """The fields of RunRequest that are options of `run` alone."""

    budget_usd: options.BudgetUsd = None
    update: Annotated[bool, typer.Option("--update", help="Ask again lines that changed since they were answered.")] = (
        False
    )
    everything: Annotated[bool, typer.Option("--all", help="Also retry bad requests and refused content.")] = False
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard all answers in this output and ask every line.")] = (
        False
    )
    csv_safe: options.CsvSafe = False
    weight: options.Weight = USUAL_WEIGHT


BY_DEFAULT = Policy()


@app.command()
def run(
    source: requests.Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the results: .jsonl, .csv or .tsv.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="CSV: template of the prompt, columns in braces.")
    ] = None,
    lines: requests.RequestOptions = requests.USUAL,
    policy: Policy = BY_DEFAULT,
    workers: options.Workers = 1,
    max_concurrency: options.Concurrency = None,
    dry: requests.DryRun = False,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Run every prompt of INPUT through its chain of providers and write the results to a file.

    Ctrl-C finishes the calls in flight and stops; a second Ctrl-C stops at once. A run with the same OUTPUT resumes:
    answered lines keep their answers and are not paid for again, even if lines were added, moved or removed, or the
    chain changed. Lines that changed since they were answered are asked again only with --update.
    """
    with plain_errors():
        shape = lines.shape(prompt)
        settings = installation.settings() if dry else installation.settings_for_calls()
        settings = with_options(settings, "worker", max_concurrency=max_concurrency)
        settings = with_options(settings, "logging", format="text", level="warning")  # shown between progress lines
        check_suffix(output, csv_safe=policy.csv_safe)
        if dry:
            before = None if policy.fresh else output
            dry_run(settings, source, shape, lines.skip_bad, as_json, before, policy.everything)
            return
        with requests.as_file(source) as path:
            asked = RunRequest(path, output, shape, lines.skip_bad, **asdict(policy))
            command = RunOptions(asked, installation.config, workers, as_json)
            code = asyncio.run(run_main_job(settings, command, console()))
    raise typer.Exit(code)
