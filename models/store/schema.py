"""Brings the database's schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

import models.migrations

MIGRATION_LOCK = 0x756E64657273  # any number that all our processes agree on


def configuration(connection: Connection | None = None) -> Config:
    config = Config()
    folder = str(Path(models.migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Apply what is missing. Several processes may try at once: the first does it, the others find it done."""
    if connection.dialect.name == "postgresql":
        connection.execute(TAKE_MIGRATION_LOCK)
    command.upgrade(configuration(connection), "head")


def is_current(connection: Connection) -> bool:
    heads = ScriptDirectory.from_config(configuration()).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)


TAKE_MIGRATION_LOCK = select(func.pg_advisory_xact_lock(MIGRATION_LOCK))
"""Wait until no other process migrates this PostgreSQL database; released by the commit."""
