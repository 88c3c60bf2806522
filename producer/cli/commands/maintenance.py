"""`understudy migrate` and `prune`: bring the schema up to date, and delete old finished work."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from understudy.models.config.settings import Settings
from understudy.models.store import Store, open_store
from understudy.models.store.database.migrate import head
from understudy.models.store.retention import Prunable
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.api.files.blobs import StorageDown, open_blobs
from understudy.producer.audit_actor import command_line
from understudy.producer.cli import options
from understudy.producer.cli.errors import Refused, plain_errors
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.number_format import counted
from understudy.producer.status import printing as show
from understudy.producer.terminal import console, say

app = options.Commands()


@app.command()
def migrate(installation: Installation = HERE) -> None:
    """Bring the database schema up to date (automatic with SQLite)."""
    with plain_errors():
        asyncio.run(_migrate(installation.settings()))


async def _migrate(settings: Settings) -> None:
    async with open_store(settings.database_url, settings.data, migrate=True) as store:
        await store.audit.record(command_line(), "", "migrate", store.place, None, {"schema": head()})
    console().print("The schema is up to date.")


OlderThan = Annotated[str, typer.Option("--older-than", help="Minimum time since it ended: 12h, 30d.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show how much would be deleted.")]


@app.command()
def prune(
    older_than: OlderThan,
    dry_run: DryRun = False,
    installation: Installation = HERE,
    as_json: options.AsJson = False,
) -> None:
    """Delete old finished batches and single jobs of all tenants, with their prompts, answers and files.

    Also deletes uploads that no remaining batch was created from, webhook deliveries, idempotency keys, and usage
    counters of tenants from before this month. Unfinished work and the audit log are kept.
    """
    age_s = options.duration_s(older_than)

    async def work(settings: Settings, store: Store) -> None:
        before = await store.now() - age_s
        found = await store.retention.prunable(before) if dry_run else await _prune(settings, store, before, older_than)
        if as_json:
            show.print_json({"before": before, "dry_run": dry_run, **asdict(found)})
        say(f"{_counts(found)} {'would be' if dry_run else 'were'} deleted")

    installation.on_ledger(work)


async def _prune(settings: Settings, store: Store, before: float, older_than: str) -> Prunable:
    from understudy.producer.api.files.blobs import remove_expired  # imports FastAPI, which is slow to load

    batches, jobs = await store.retention.prune(before)
    files = await store.retention.end_old_uploads(before)
    pruned = Prunable(
        batches=batches,
        jobs=jobs,
        files=files,
        deliveries=await store.webhooks.prune_deliveries(before),
        names=await store.retention.prune_names(before),
        tallies=await store.retention.prune_use(before),
    )
    await store.content.clear_up(pruned=True)
    await store.audit.record(command_line(), DEFAULT_TENANT, "prune", f"older than {older_than}", None, asdict(pruned))
    try:
        await remove_expired(store, open_blobs(settings))
    except StorageDown as error:
        raise Refused(f"the files are deleted, but their contents are still stored: {error}; run it again") from None
    return pruned


def _counts(found: Prunable) -> str:
    return (
        f"{counted(found.batches, 'batch', 'batches')}, {counted(found.jobs, 'single job')}, "
        f"{counted(found.files, 'uploaded file')}, "
        f"{counted(found.deliveries, 'webhook delivery', 'webhook deliveries')}, "
        f"{counted(found.names, 'idempotency key')} and {counted(found.tallies, 'usage counter')}"
    )
