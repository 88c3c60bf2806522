"""Alembic's entry: runs the revisions on the connection that `models.store.database.migrate` hands over."""

from typing import Literal

from alembic import context
from sqlmodel import AutoString

from understudy.models.tables import Job


def plain_string(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Revisions must not depend on SQLModel's own types."""
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Job.metadata,
    render_item=plain_string,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
