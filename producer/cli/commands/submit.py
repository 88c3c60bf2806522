"""`understudy submit`: accept a file as a batch, or one prompt as a job."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.errors import ALL_SUCCEEDED
from understudy.models.ids import new_id
from understudy.models.records import NewBatch
from understudy.models.routing.options import RouteOptions
from understudy.models.state import Priority
from understudy.models.weights import USUAL_WEIGHT
from understudy.producer.cli import options, requests
from understudy.producer.cli.commands.watch import print_answer, watch
from understudy.producer.cli.dry_run import dry_run
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.settings import settings_from
from understudy.producer.client import AsyncClient, PriorityWord, Request
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ingest.intake import BadLine, Shape
from understudy.producer.ledger import open_ledger
from understudy.producer.queue_access import queue_of
from understudy.producer.runs.preflight import Preflight
from understudy.producer.runs.runs import accept, refuse_bad_start
from understudy.producer.status import objects as show
from understudy.producer.status.waiting import lack_of_workers
from understudy.producer.terminal import say

app = typer.Typer()


class PriorityName(StrEnum):
    INTERACTIVE = Priority.INTERACTIVE.queue
    NORMAL = Priority.NORMAL.queue
    BULK = Priority.BULK.queue


@app.command()
def submit(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[INPUT]", help="JSONL, CSV or TSV file; - for standard input."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="Without INPUT: a single prompt. CSV: template of the prompt, columns in braces."
        ),
    ] = None,
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
    priority: Annotated[
        PriorityName | None, typer.Option("--priority", help="Default: bulk for a file, normal for a prompt.")
    ] = None,
    weight: options.Weight = USUAL_WEIGHT,
    expires_in: Annotated[
        float | None,
        typer.Option(
            "--expires-in",
            parser=options.duration_s,
            metavar="TIME",
            help="Time until the deadline, e.g. 15m; default 24h.",
        ),
    ] = None,
    budget_usd: options.BudgetUsd = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Watch it until it ends; for a single prompt, print the answer instead of the id."),
    ] = False,
    dry: requests.DryRun = False,
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.AsJson = False,
) -> None:
    """Accept a file as a batch, or one prompt as a job, and print its id.

    Once the id is printed, the work is accepted and will be completed whatever crashes. Workers (`understudy worker`)
    on the same data folder, or with the same REDIS_URL and DATABASE_URL, process it.
    """
    route = requests.route_of(model, chain, fallback, order, require, forbid)
    with plain_errors():
        settings, params = settings_from(config, data), requests.params_of(max_tokens, temperature, param)
        shape = requests.shape_of(prompt, system, id_column, limit, route, params)
        if dry:
            if source is None:
                raise InputError("--dry-run needs an INPUT; it does not apply to a single prompt")
            dry_run(settings, source, shape, skip_bad, as_json)
            return
        if source is not None:
            new = NewBatch(new_id("batch"), _priority(priority, Priority.BULK), weight=weight, budget_usd=budget_usd)
            skipped = asyncio.run(_submit_file(settings, source, shape, new, expires_in, skip_bad))
            if not wait:
                show.print_id(new.id, as_json, [bad.line for bad in skipped])
        elif prompt is not None:
            if budget_usd is not None:
                raise InputError("--budget-usd applies to batches only, not to a single prompt")
            ask = {**params, **_prompt_request(prompt, system)}
            word = _priority(priority, Priority.NORMAL).queue
            code = asyncio.run(_submit_prompt(settings, ask, route, word, expires_in, wait, as_json))
            raise typer.Exit(code)
        else:
            raise InputError("give an INPUT file, or a single prompt with --prompt")
    if wait:
        watch(new.id, config, data, as_json)


def _priority(given: PriorityName | None, default: Priority) -> Priority:
    return Priority[given.name] if given else default


def _prompt_request(prompt: str, system: str | None) -> dict[str, str]:
    return {"prompt": prompt} if system is None else {"prompt": prompt, "system": system}


async def _submit_file(
    settings: Settings, source: Path, shape: Shape, new: NewBatch, expires_in_s: float | None, skip_bad: bool
) -> list[BadLine]:
    with requests.as_file(source) as path:
        refuse_bad_start(settings, path, shape, skip_bad=skip_bad)
        async with open_ledger(settings, create=True) as store:
            new.source = "standard input" if str(source) == "-" else source.name
            new.expires_at = await store.now() + (expires_in_s or settings.deadline_s)
            preflight = Preflight(settings)
            skipped = await accept(store, settings, path, shape, new, skip_bad=skip_bad, preflight=preflight)
            for bad in skipped:
                say(f"skipped line {bad.line}: {bad.reason}")
            for said in (preflight.expected, *preflight.findings):
                say(said)
            if lack := await lack_of_workers(store):
                say(lack)
    return skipped


async def _submit_prompt(
    settings: Settings,
    request: Request,
    route: RouteOptions,
    priority: PriorityWord,
    expires_in_s: float | None,
    wait: bool,
    as_json: bool,
) -> int:
    async with open_ledger(settings, create=True) as store, queue_of(settings) as queue:
        job = await AsyncClient.on(settings, store, queue).submit(
            request,
            model=route.model,
            chain=route.chain,
            fallbacks=route.fallbacks,
            order=route.order,
            require=route.require,
            forbid=route.forbid,
            priority=priority,
            expires_in_s=expires_in_s,
        )
        if lack := await lack_of_workers(store):
            say(lack)
        if not wait:
            show.print_id(job.id, as_json)
            return ALL_SUCCEEDED
        say(f"{job.id} is accepted")
        return await print_answer(settings, store, job.id, as_json)
