"""`understudy watch`: the progress of a batch or a job until it ends."""

import asyncio

import typer

from understudy.models.config.settings import Settings
from understudy.models.errors import ALL_SUCCEEDED, SOME_FAILED
from understudy.models.jobs.views import BatchView
from understudy.models.objects.job import with_result
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.cli import options
from understudy.producer.cli.commands.status import print_batch
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.client import AsyncClient
from understudy.producer.ledger import job_named, shown_batch
from understudy.producer.number_format import spent
from understudy.producer.runs.retry_chain import line_of, summary, views_of
from understudy.producer.status import printing as show
from understudy.producer.status.documents import job_document
from understudy.producer.status.failed_calls import failure_examples
from understudy.producer.status.progress import Display
from understudy.producer.status.split_table import split_table
from understudy.producer.status.standstill import Standstill
from understudy.producer.terminal import console, output, say

app = options.Commands()

WATCH_S = 0.5


@app.command()
def watch(
    given: options.AnyId,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
    tenant: options.Tenant = None,
) -> None:
    """Show the progress of a batch or job until it ends. Exit code 0 if everything succeeded, else 1.

    Existing retries of a batch are included. Ctrl-C stops watching, not the work.
    """

    async def work(settings: Settings, store: Store) -> int:
        if await job_named(store, given, tenant) is not None:
            return await print_answer(settings, store, given, as_json)
        batch_id = await shown_batch(store, given, tenant)
        line = await line_of(store, batch_id) or [batch_id]
        views = await _watch_line(settings, store, line)
        sums = summary(views)
        if as_json:
            await print_batch(settings, store, batch_id, as_json=True)
        console().print(split_table(views, await store.jobs.latency_percentiles(batch_id)))
        for said in await failure_examples(store, views):
            say(said)
        cost = spent(sums.cost_usd, sums.unpriced_calls)
        say(f"{views[-1].state}: {sums.succeeded:,} of {sums.total:,} succeeded, {cost}")
        return ALL_SUCCEEDED if sums.succeeded == sums.total else SOME_FAILED

    raise typer.Exit(installation.on_ledger(work))


async def _watch_line(settings: Settings, store: Store, line: list[str]) -> list[BatchView]:
    display = Display(console())
    still = Standstill(settings, store, display.say, after_s=0.0)
    with display.shown():
        while True:
            views = await views_of(store, line)
            display.update(summary(views), views, str(views[-1].state))
            if not summary(views).open:
                return views
            await still.look(views, summary(views).done)
            await asyncio.sleep(WATCH_S)


async def print_answer(settings: Settings, store: Store, job_id: str, as_json: bool) -> int:
    """Wait for a job and print its answer. Returns the exit code."""
    job = await job_named(store, job_id)
    tenant = job.tenant if job else DEFAULT_TENANT
    result = await AsyncClient.on(settings, store, tenant=tenant).wait(job_id)
    if as_json:
        answer = await store.jobs.answer(job_id) if result.ok else None
        show.print_json(with_result(await job_document(settings, store, job_id, tenant), answer))
    elif result.ok:
        output().write(f"{result.text}\n")
    else:
        say(f"{result.state}: {result.error or 'its answer was removed'}")
    return ALL_SUCCEEDED if result.state is JobState.SUCCEEDED else SOME_FAILED
