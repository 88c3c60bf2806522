"""Brings the database's schema up to date."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, column, func, inspect, select, table

from understudy.models import migrations

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATION_LOCK = 0x756E64657273  # an arbitrary number that all our processes share
FOLDER = Path(migrations.__file__).parent


def configuration(connection: Connection | None = None) -> "Config":
    from alembic.config import Config  # Alembic takes as long to load as everything else; few processes migrate

    config = Config()
    folder = str(FOLDER)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Apply missing migrations. Several processes may try at once: the first migrates, the others then find nothing
    to do."""
    from alembic import command

    if connection.dialect.name == "postgresql":
        connection.execute(TAKE_MIGRATION_LOCK)
    command.upgrade(configuration(connection), "head")


def is_current(connection: Connection) -> bool:
    return _revisions(connection) == [head()]


def is_newer(connection: Connection) -> bool:
    """Whether a newer version of Understudy has migrated the database: this one cannot read it or downgrade it."""
    return any(revision > head() for revision in _revisions(connection))


def _revisions(connection: Connection) -> Sequence[str]:
    if not inspect(connection).has_table("alembic_version"):
        return []
    return connection.execute(REVISION).scalars().all()


@cache
def head() -> str:
    """The latest revision; files are named after their revision."""
    return max(path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py"))


REVISION: Select[Any] = select(column("version_num")).select_from(table("alembic_version"))
"""The revision of the database's schema."""

TAKE_MIGRATION_LOCK = select(func.pg_advisory_xact_lock(MIGRATION_LOCK))
"""Wait until no other process migrates this PostgreSQL database; released by the commit."""
