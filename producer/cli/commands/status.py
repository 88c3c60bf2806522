"""`understudy status`: the state of batches and jobs."""

from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.jobs.views import JobView
from understudy.models.store import Store
from understudy.producer.cli import options
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.ledger import UnknownId, job_named, shown_batch
from understudy.producer.queue_access import queue_of
from understudy.producer.runs.retry_chain import line_of
from understudy.producer.status import printing as show
from understudy.producer.status.documents import batch_documents, job_document, reserved_of
from understudy.producer.status.standstill import awaited
from understudy.producer.status.waiting import explained, waiting_of_job
from understudy.producer.terminal import say

app = options.Commands()


@app.command()
def status(
    given: options.MaybeId = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="List the latest N batches.")] = 20,
    tenant: options.Tenant = None,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Show the state of a batch or job: counts, rate, time left, cost, providers, and why it waits.

    Without an ID, list the latest batches; with --json, one batch per line.
    """

    async def work(settings: Settings, store: Store) -> None:
        if given is None:
            await _print_batches(settings, store, tenant, limit, as_json)
            return
        job = await job_named(store, given, tenant)
        if job is not None:
            await _print_job(settings, store, job, as_json)
            return
        await print_batch(settings, store, await shown_batch(store, given, tenant), as_json)

    installation.on_ledger(work)


async def _print_batches(settings: Settings, store: Store, tenant: str | None, limit: int, as_json: bool) -> None:
    views = await store.batches.page(tenant, limit)
    if as_json:
        async with queue_of(settings) as queue:
            for document in await batch_documents(store, queue, views):
                show.print_json(document)
    elif views:
        show.page().print(show.batches_table(views))
    else:
        say("no batches have been submitted yet" + (f" by tenant {tenant}" if tenant else ""))


async def print_batch(settings: Settings, store: Store, batch_id: str, as_json: bool) -> None:
    """Print a batch with its retries and wait reasons, as text or JSON."""
    view = await store.batches.view(batch_id)
    if view is None:
        raise UnknownId(batch_id, "batch")
    async with queue_of(settings) as queue:
        if as_json:
            (document,) = await batch_documents(store, queue, [view])
            show.print_json(document)
            return
        reserved_usd = await reserved_of(queue, view)
    retries = (await line_of(store, batch_id))[1:]
    _, said = (None, "") if view.paused else await awaited(settings, store, [view])
    show.print_batch(view, retries, said, await store.jobs.latency_percentiles(batch_id), reserved_usd)


async def _print_job(settings: Settings, store: Store, job: JobView, as_json: bool) -> None:
    async with queue_of(settings) as queue:
        waiting = await waiting_of_job(settings, store, queue, job)
    if as_json:
        show.print_json(await job_document(settings, store, job.id, job.tenant, waiting))
    else:
        show.print_job(job, explained(waiting, job.now))
