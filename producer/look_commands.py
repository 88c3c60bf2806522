"""The commands that look: status, watch, results, attempts."""

import asyncio
import time
from typing import Annotated, Any

import typer

from models.failure import FailureClass
from models.records import BatchView
from models.settings import Settings
from models.state import TERMINAL_STATES, JobState
from models.store import Store
from producer import cli, show
from producer.client import Client, JobResult
from producer.estimates import spent
from producer.exits import ALL_SUCCEEDED, SOME_FAILED
from producer.failed_calls import failure_examples
from producer.job_waiting import waiting_of_job
from producer.ledger import NEWEST, UnknownId, shown_batch
from producer.money import held_of
from producer.newest import rows_of
from producer.output import CsvForm, output_line, row_of_job, write_csv, write_jsonl
from producer.progress import Display, split_table
from producer.retries import line_of
from producer.runs import summary, views_of
from producer.standstill import Standstill, awaited
from producer.terminal import output
from producer.waiting import explained, queue_of

app = typer.Typer()

WATCH_S = 0.5
ATTEMPTS_MAX = 100_000

MaybeId = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="Id of a batch or a job; latest or - for the newest batch.")
]


@app.command()
def status(
    given: MaybeId = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="How many batches the list has.")] = 20,
    tenant: cli.Tenant = None,
    config: cli.Config = None,
    data: cli.Data = None,
    as_json: cli.AsJson = False,
) -> None:
    """Where a batch or a job stands: counts, rate, time left, cost, who answers, and why it waits.

    Without an ID: the latest batches. A list with --json has one batch per line.
    """

    async def work(settings: Settings, store: Store) -> None:
        if given is None:
            await _print_batches(store, tenant, limit, as_json)
            return
        job = await job_named(store, given, tenant)
        if job is not None:
            await _print_job(settings, store, job, as_json)
            return
        await print_batch(settings, store, await shown_batch(store, given, tenant), as_json)

    cli.on_ledger(config, data, work)


async def _print_batches(store: Store, tenant: str | None, limit: int, as_json: bool) -> None:
    views = await store.list_batches(tenant, limit)
    if as_json:
        for view in views:
            show.print_json(show.batch_document(view))
    elif views:
        show.page().print(show.batches_table(views))
    else:
        cli.say("no batch was submitted yet" + (f" by tenant {tenant}" if tenant else ""))


async def job_named(store: Store, given: str, tenant: str | None = None) -> dict[str, Any] | None:
    """What the ledger shows of a job, of one tenant if that is given; None when the id is none of such a job."""
    job = None if given in NEWEST else await store.job_view(given)
    return job if job is not None and tenant in (None, job["tenant"]) else None


async def print_batch(settings: Settings, store: Store, batch_id: str, as_json: bool) -> None:
    """A batch with its retries and what it waits for, for people or as JSON."""
    view = await store.batch_view(batch_id)
    if view is None:
        raise UnknownId(batch_id, "batch")
    retries = (await line_of(store, batch_id))[1:]
    waiting, said = (None, "") if view.paused else await awaited(settings, store, [view])
    async with queue_of(settings) as queue:
        held_usd = await held_of(queue, view)
    if as_json:
        show.print_json(show.batch_document(view, retries, waiting, said, held_usd))
    else:
        show.print_batch(view, retries, said, await store.latency_percentiles(batch_id), held_usd)


async def _print_job(settings: Settings, store: Store, job: dict[str, Any], as_json: bool) -> None:
    now = await store.now()
    async with queue_of(settings) as queue:
        waiting = await waiting_of_job(settings, store, queue, job, now)
    if as_json:
        show.print_json(show.job_document(job, now, waiting))
    else:
        show.print_job(job, explained(waiting, now), now)


@app.command()
def watch(
    given: cli.AnyId,
    config: cli.Config = None,
    data: cli.Data = None,
    as_json: cli.AsJson = False,
    tenant: cli.Tenant = None,
) -> None:
    """Show the progress of a batch or a job until it has ended. Exit code 0 if all of it succeeded, else 1.

    Retries of a batch that exist by now are part of it. Ctrl-C stops watching, not the work.
    """

    async def work(settings: Settings, store: Store) -> int:
        if await job_named(store, given, tenant) is not None:
            return await print_answer(Client(settings, store, None), given, as_json)
        batch_id = await shown_batch(store, given, tenant)
        line = await line_of(store, batch_id) or [batch_id]
        views = await _watch_line(settings, store, line)
        sums = summary(views)
        if as_json:
            await print_batch(settings, store, batch_id, as_json=True)
        cli.console().print(split_table(views, await store.latency_percentiles(batch_id)))
        for said in await failure_examples(store, views):
            cli.say(said)
        cost = spent(sums.cost_usd, sums.unpriced_calls)
        cli.say(f"{views[-1].state}: {sums.succeeded:,} of {sums.total:,} succeeded, {cost}")
        return ALL_SUCCEEDED if sums.succeeded == sums.total else SOME_FAILED

    raise typer.Exit(cli.on_ledger(config, data, work))


async def _watch_line(settings: Settings, store: Store, line: list[str]) -> list[BatchView]:
    display = Display(cli.console())
    still = Standstill(settings, store, display.say, after_s=0.0)
    with display.shown():
        while True:
            views = await views_of(store, line)
            display.update(summary(views), views, str(views[-1].state))
            if not summary(views).open:
                return views
            await still.look(views, summary(views).done)
            await asyncio.sleep(WATCH_S)


async def print_answer(client: Client, job_id: str, as_json: bool) -> int:
    """Wait for a job and print its answer; returns the exit code."""
    result = await client.wait(job_id)
    assert isinstance(result, JobResult)
    if as_json:
        view = await client.store.job_view(job_id)
        show.print_json(show.job_document(view or {}, await client.store.now()))
    elif result.state is JobState.SUCCEEDED:
        output().write(f"{result.text}\n")
    else:
        cli.say(f"{result.state}: {result.error}")
    return ALL_SUCCEEDED if result.state is JobState.SUCCEEDED else SOME_FAILED


@app.command()
def results(
    given: cli.AnyId,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of JSON lines.")] = False,
    csv_safe: cli.CsvSafe = False,
    tenant: cli.Tenant = None,
    config: cli.Config = None,
    data: cli.Data = None,
) -> None:
    """Print what has ended, one line per job, also while the rest still runs.

    Lines are those of OpenAI's batch output; with --csv the input's columns and the answer beside them. What a retry
    has answered stands in place of the failure.
    """
    if csv_safe and not as_csv:
        raise typer.BadParameter("is for --csv; JSON lines have no formulas", param_hint="--csv-safe")

    async def work(_: Settings, store: Store) -> None:
        job = await job_named(store, given, tenant)
        if job is not None:
            row = row_of_job(job)
            if row.state not in TERMINAL_STATES:
                raise cli.Refused(f"{given} has not ended yet: it is {row.state}")
            show.print_json(output_line(row))
            return
        batch_id = await shown_batch(store, given, tenant)
        rows = rows_of(store, await store.root_of(batch_id) if given in NEWEST else batch_id)
        if as_csv:
            await write_csv(rows, output(), CsvForm(safe=csv_safe))
        else:
            await write_jsonl(rows, output())

    cli.on_ledger(config, data, work)


@app.command()
def attempts(
    given: MaybeId = None,
    provider: Annotated[str | None, typer.Option("--provider", help="Only calls of this provider.")] = None,
    failure: Annotated[FailureClass | None, typer.Option("--failure", help="Only failures of this class.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only calls with the credential of this name.")] = None,
    since: Annotated[
        float | None, typer.Option("--since", parser=cli.duration_s, metavar="TIME", help="Only the last 15m, 24h, ...")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=ATTEMPTS_MAX, help="Show the latest N calls.")] = 50,
    tenant: cli.Tenant = None,
    config: cli.Config = None,
    data: cli.Data = None,
    as_json: cli.AsJson = False,
) -> None:
    """The log of provider calls: of a batch, a job, or all; the latest ones, oldest first. With --json, JSON lines."""

    async def work(_: Settings, store: Store) -> None:
        job = await job_named(store, given, tenant) if given else None
        rows = await store.attempts(
            tenant=tenant,
            batch_id=await shown_batch(store, given, tenant) if given and not job else None,
            job_id=given if job else None,
            provider=provider,
            failure=failure,
            key=key,
            since=None if since is None else time.time() - since,
            limit=limit,
            latest=True,
        )
        if as_json:
            for row in rows:
                show.print_json(row)
        else:
            show.print_attempts(rows)

    cli.on_ledger(config, data, work)
