"""`understudy migrate`: migrate the database to the schema of this version."""

import asyncio

from understudy.models.config.settings import Settings
from understudy.models.store import open_store
from understudy.models.store.database.schema import head
from understudy.producer.acting import command_line
from understudy.producer.cli.errors import plain_errors
from understudy.producer.cli.installation import HERE, Installation
from understudy.producer.cli.options import Commands
from understudy.producer.terminal import console

app = Commands()


@app.command()
def migrate(installation: Installation = HERE) -> None:
    """Bring the database schema up to date (automatic with SQLite)."""
    with plain_errors():
        asyncio.run(_migrate(installation.settings()))


async def _migrate(settings: Settings) -> None:
    async with open_store(settings.database_url, settings.data, migrate=True) as store:
        await store.audit.record(command_line(), "", "migrate", store.place, None, {"schema": head()})
    console().print("The schema is up to date.")
