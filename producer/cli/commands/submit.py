"""`understudy submit`: accept a file as a batch, or one prompt as a job."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.errors import ALL_SUCCEEDED
from understudy.models.ids import new_id
from understudy.models.jobs.submission import NewBatch
from understudy.models.state import Priority
from understudy.models.tenants import USUAL_WEIGHT
from understudy.producer.cli import options, requests
from understudy.producer.cli.commands.watch import print_answer, watch
from understudy.producer.cli.dry_run import dry_run
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.client import AsyncClient
from understudy.producer.client.submission import Routing
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.input_rows import Shape
from understudy.producer.ingest.intake import BadLine
from understudy.producer.ledger import open_ledger
from understudy.producer.queue_access import queue_of
from understudy.producer.runs.preflight import Preflight
from understudy.producer.runs.runs import accept, refuse_bad_start
from understudy.producer.status import printing as show
from understudy.producer.status.waiting import lack_of_workers
from understudy.producer.terminal import say

app = options.Commands()


class PriorityName(StrEnum):
    INTERACTIVE = Priority.INTERACTIVE.queue
    NORMAL = Priority.NORMAL.queue
    BULK = Priority.BULK.queue


@dataclass(frozen=True, slots=True)
class Terms:
    """When and for how much the work is done."""

    priority: Annotated[
        PriorityName | None, typer.Option("--priority", help="Default: bulk for a file, normal for a prompt.")
    ] = None
    weight: options.Weight = USUAL_WEIGHT
    expires_in: Annotated[
        float | None,
        typer.Option(
            "--expires-in",
            parser=options.duration_s,
            metavar="TIME",
            help="Time until the deadline, e.g. 15m; default 24h.",
        ),
    ] = None
    budget_usd: options.BudgetUsd = None

    def priority_or(self, default: Priority) -> Priority:
        return Priority[self.priority.name] if self.priority else default


USUAL = Terms()


@app.command()
def submit(
    source: Annotated[
        Path | None, typer.Argument(metavar="[INPUT]", help="JSONL, CSV or TSV file; - for standard input.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="Without INPUT: a single prompt. CSV: template of the prompt, columns in braces."
        ),
    ] = None,
    lines: requests.RequestOptions = requests.USUAL,
    terms: Terms = USUAL,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Watch it until it ends; for a single prompt, print the answer instead of the id."),
    ] = False,
    dry: requests.DryRun = False,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Accept a file as a batch, or one prompt as a job, and print its id.

    Once the id is printed, the work is accepted and will be completed whatever crashes. Workers (`understudy worker`)
    on the same data folder, or with the same REDIS_URL and DATABASE_URL, process it.
    """
    with plain_errors():
        shape, settings = lines.shape(prompt), installation.settings()
        if source is None:
            _refuse_no_prompt(prompt, terms, dry)
            raise typer.Exit(asyncio.run(_submit_prompt(settings, shape, lines.routing(), terms, wait, as_json)))
        if dry:
            dry_run(settings, source, shape, lines.skip_bad, as_json)
            return
        batch_id, skipped = asyncio.run(_submit_file(settings, source, shape, terms, lines.skip_bad))
        if not wait:
            show.print_id(batch_id, as_json, [bad.line for bad in skipped])
    if wait:
        watch(batch_id, installation, as_json)


def _refuse_no_prompt(prompt: str | None, terms: Terms, dry: bool) -> None:
    if dry:
        raise InputError("--dry-run needs an INPUT; it does not apply to a single prompt")
    if prompt is None:
        raise InputError("give an INPUT file, or a single prompt with --prompt")
    if terms.budget_usd is not None:
        raise InputError("--budget-usd applies to batches only, not to a single prompt")


async def _submit_file(
    settings: Settings, source: Path, shape: Shape, terms: Terms, skip_bad: bool
) -> tuple[str, list[BadLine]]:
    """The id of the new batch, and the skipped lines."""
    with requests.as_file(source) as path:
        refuse_bad_start(settings, path, shape, skip_bad=skip_bad)
        async with open_ledger(settings, create=True) as store:
            new = NewBatch(
                new_id("batch"),
                terms.priority_or(Priority.BULK),
                weight=terms.weight,
                budget_usd=terms.budget_usd,
                source="standard input" if str(source) == "-" else source.name,
                expires_at=await store.now() + (terms.expires_in or settings.deadline_s),
            )
            preflight = Preflight(settings)
            skipped = await accept(store, settings, path, shape, new, skip_bad=skip_bad, preflight=preflight)
            for bad in skipped:
                say(f"skipped line {bad.line}: {bad.reason}")
            for said in (preflight.expected, *preflight.findings):
                say(said)
            if lack := await lack_of_workers(store):
                say(lack)
    return new.id, skipped


async def _submit_prompt(
    settings: Settings, shape: Shape, routing: Routing, terms: Terms, wait: bool, as_json: bool
) -> int:
    request = {**shape.params, "prompt": shape.prompt}
    if shape.system is not None:
        request["system"] = shape.system
    async with open_ledger(settings, create=True) as store, queue_of(settings) as queue:
        job = await AsyncClient.on(settings, store, queue).submit(
            request, priority=terms.priority_or(Priority.NORMAL).queue, expires_in_s=terms.expires_in, **routing
        )
        if lack := await lack_of_workers(store):
            say(lack)
        if not wait:
            show.print_id(job.id, as_json)
            return ALL_SUCCEEDED
        say(f"{job.id} is accepted")
        return await print_answer(settings, store, job.id, as_json)
