"""`understudy attempts`: the log of provider calls."""

import time
from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.failure import FailureClass
from understudy.models.store import Store
from understudy.producer.cli import options
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.ledger import job_named, shown_batch
from understudy.producer.status import printing as show

app = options.Commands()

ATTEMPTS_MAX = 100_000


@app.command()
def attempts(
    given: options.MaybeId = None,
    provider: Annotated[str | None, typer.Option("--provider", help="Only calls of this provider.")] = None,
    failure: Annotated[
        FailureClass | None, typer.Option("--failure", help="Only calls that failed with this class.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only calls with the key of this name.")] = None,
    since: Annotated[
        float | None,
        typer.Option("--since", parser=options.duration_s, metavar="TIME", help="Only the last 15m, 24h, …"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=ATTEMPTS_MAX, help="Show the latest N calls.")] = 50,
    tenant: options.Tenant = None,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Show the latest provider calls of a batch, a job or all jobs, oldest first. With --json, JSON lines."""

    async def work(_: Settings, store: Store) -> None:
        job = await job_named(store, given, tenant) if given else None
        rows = await store.jobs.attempts(
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

    installation.on_ledger(work)
