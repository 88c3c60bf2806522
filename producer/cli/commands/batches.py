"""The commands that act on a batch: cancel, retry, pause, resume, ack."""

from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.costs.budgets import amount
from understudy.models.jobs.submission import SINGLE
from understudy.models.routing.request_options import RouteOptions
from understudy.models.state import OPEN_BATCH_STATES, JobState
from understudy.models.store import Store
from understudy.models.store.audit import Values
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options
from understudy.producer.cli.commands.status import print_batch
from understudy.producer.cli.errors import Refused
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.ledger import batch_named, cancel_batch, job_named
from understudy.producer.number_format import counted
from understudy.producer.runs.budget_grants import grant, is_subject
from understudy.producer.runs.reruns import retry as rerun
from understudy.producer.runs.reruns import take_another_chain
from understudy.producer.status import printing as show
from understudy.producer.status.waiting import lack_of_workers, resumed
from understudy.producer.terminal import say

app = options.Commands()


@app.command()
def cancel(given: options.AnyId, installation: Installation = HERE, as_json: options.AsJson = False) -> None:
    """Cancel a batch or a job. Finished jobs keep their results; calls in flight are aborted."""

    async def work(settings: Settings, store: Store) -> None:
        job = await job_named(store, given)
        if job is not None:
            await _cancel_job(store, given, job.tenant)
            return
        batch_id = await batch_named(store, given)
        if not await cancel_batch(store, batch_id):
            raise await _has_ended(store, batch_id)
        await _record(store, "batch.cancel", batch_id)
        say(f"{batch_id} is cancelled; its finished jobs keep their results")
        if as_json:
            await print_batch(settings, store, batch_id, as_json=True)

    installation.on_ledger(work)


async def _cancel_job(store: Store, job_id: str, tenant: str) -> None:
    state = await store.jobs.cancel(job_id)
    if state not in (JobState.CANCELLED, JobState.RUNNING):
        raise Refused(f"{job_id} has already ended: it is {state}")
    await store.audit.record(command_line(), tenant, "job.cancel", job_id)
    say(f"{job_id} is {'being cancelled' if state is JobState.RUNNING else 'cancelled'}")


async def _has_ended(store: Store, batch_id: str) -> Refused:
    view = await store.batches.view(batch_id)
    return Refused(f"{batch_id} has ended or is ending: it is {view.state if view else 'gone'}")


@app.command()
def retry(
    given: options.BatchId,
    answered_by: Annotated[
        list[str] | None,
        typer.Option(
            "--answered-by", metavar="PROVIDER", help="Rerun what this provider answered instead; repeatable."
        ),
    ] = None,
    model: options.AnotherModel = None,
    chain: options.AnotherChain = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also rerun bad requests, refused content and crashed jobs, after fixing the cause."
        ),
    ] = False,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Rerun the jobs that ended without an answer, as a new batch linked to the old one; print its id.

    These are the failed, expired and cancelled jobs, except bad requests, refused content and crashed jobs, which would
    fail again; with another --model or --chain, bad requests and refused content are retried, too. If the batch paused
    because its first jobs all failed, those are rerun whatever the failure. Answered jobs and jobs that are already in
    another retry are not paid for again. With --answered-by, what a provider answered is asked and paid for again.
    """

    async def work(settings: Settings, store: Store) -> None:
        batch_id = await batch_named(store, given)
        route = RouteOptions(model=model, chain=chain)
        again, made = await rerun(
            store, settings, batch_id, route, everything=everything, answered_by=answered_by or ()
        )
        if again.batch_id is None:
            lack = "no unanswered job that is worth a retry"
            if answered_by:
                lack = (
                    f"no line whose latest answer is from {' or '.join(answered_by)} and whose prompt is still stored"
                )
            raise Refused(f"{batch_id} has {lack}{again.left_out_words and f'; {again.left_out_words}'}")
        await _record(store, "batch.retry", batch_id, new=made)
        if again.left_out:
            say(again.left_out_words)
        if missing := await lack_of_workers(store):
            say(missing)
        show.print_id(again.batch_id, as_json)

    installation.on_ledger(work)


@app.command()
def pause(
    given: options.BatchId,
    reason: Annotated[
        str, typer.Option("--reason", help="Shown as the reason why the batch waits.")
    ] = "paused by hand",
    installation: Installation = HERE,
) -> None:
    """Pause a batch: calls in flight continue, no further jobs start."""

    async def work(_: Settings, store: Store) -> None:
        batch_id = await batch_named(store, given)
        if not await store.batch_lifecycle.pause(batch_id, reason):
            raise await _has_ended(store, batch_id)
        await _record(store, "batch.pause", batch_id, new={"paused": reason})
        say(f"{batch_id} is paused; `understudy resume {batch_id}` resumes it")

    installation.on_ledger(work)


@app.command()
def resume(
    given: Annotated[
        str, typer.Argument(metavar="ID", help="A batch (latest or - for the newest), tenant:NAME or provider:NAME.")
    ],
    budget_usd: Annotated[
        float | None,
        typer.Option("--budget-usd", parser=options.dollars, metavar="USD", help="New total budget of the batch."),
    ] = None,
    model: options.AnotherModel = None,
    chain: options.AnotherChain = None,
    installation: Installation = HERE,
) -> None:
    """Resume a paused batch. If a batch, tenant or provider has spent its budget, grant the same amount again.

    A grant to a tenant or provider lasts until the end of its month or day. With --model or --chain, the waiting jobs
    of the batch switch to it, and its failed jobs are rerun with it as a new batch.
    """

    async def work(settings: Settings, store: Store) -> None:
        if is_subject(given):
            await _grant(settings, store, given, budget_usd)
            return
        batch_id = await batch_named(store, given)
        before = await store.batches.view(batch_id)
        if model or chain:
            await _take_another_chain(settings, store, batch_id, RouteOptions(model=model, chain=chain))
        total_usd = await store.budgets.grant_batch(batch_id, budget_usd)
        if not await store.batch_lifecycle.resume(batch_id):
            raise await _has_ended(store, batch_id)
        await _record(store, "batch.resume", batch_id, *resumed(before, total_usd, model, chain))
        say(f"{batch_id} is resumed{'' if total_usd is None else f' with a total budget of {amount(total_usd)} USD'}")

    installation.on_ledger(work)


@app.command()
def ack(given: options.AnyId, installation: Installation = HERE) -> None:
    """Acknowledge that you have received the results of a batch or a job.

    With `store_content = "until_delivered"`, prompts, answers and files are deleted an hour later.
    """

    async def work(_: Settings, store: Store) -> None:
        job = await job_named(store, given)
        if job is None:
            kind, object_id = "batch", await batch_named(store, given)
            view = await store.batches.view(object_id)
            tenant = view.tenant if view else ""
        elif job.batch_id != SINGLE:
            raise Refused(f"{given} belongs to a batch; run `understudy ack {job.batch_id}`")
        else:
            kind, object_id, tenant = "job", given, job.tenant
        if not await store.content.acknowledge(kind, tenant, object_id):
            raise Refused(f"{object_id} has not ended yet")
        await store.audit.record(command_line(), tenant, f"{kind}.ack", object_id)
        say(f"{object_id} is acknowledged")

    installation.on_ledger(work)


async def _record(
    store: Store, action: str, batch_id: str, old: Values | None = None, new: Values | None = None
) -> None:
    view = await store.batches.view(batch_id)
    await store.audit.record(command_line(), view.tenant if view else "", action, batch_id, old, new)


async def _take_another_chain(settings: Settings, store: Store, batch_id: str, route: RouteOptions) -> None:
    view = await store.batches.view(batch_id)
    if view is None or view.state not in OPEN_BATCH_STATES:
        raise Refused(f"{batch_id} has ended; `understudy retry {batch_id}` accepts --model and --chain, too")
    waiting, again = await take_another_chain(store, settings, batch_id, route)
    say(f"{counted(waiting, 'waiting job')} of {batch_id} switched")
    if again.batch_id is not None:
        say(f"{counted(again.jobs, 'failed job')} submitted again as {again.batch_id}")


async def _grant(settings: Settings, store: Store, given: str, budget_usd: float | None) -> None:
    if budget_usd is not None:
        raise Refused(
            "--budget-usd applies to batches only; budgets of tenants and providers are set in the configuration"
        )
    for sentence in await grant(store, settings, given, command_line()):
        say(sentence)
