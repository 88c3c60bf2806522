"""structured columns: the kind of a batch's pause, and the failure class and step of a failed job"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

SENTENCES = (
    ("its budget of %", "budget"),
    ("the first % jobs all failed: %", "canary"),
    ("the last % calls all failed: %", "failing"),
    ("%", "owner"),
)
"""Prefixes of the sentences written before there was a kind; the first match counts."""

CLASSES = frozenset(
    "connect timeout server overloaded rate_limit quota credential model_missing region context_length too_large "
    "content_filter bad_request bad_response cancelled crashed unknown".split()
)
SLICE = 500

batch = sa.table("batch", sa.column("paused"), sa.column("pause_kind"))
job = sa.table("job", sa.column("id"), sa.column("state"))
result = sa.table("result", *map(sa.column, ("job_id", "body", "error", "failure", "step")))


def upgrade() -> None:
    op.add_column("batch", sa.Column("pause_kind", sa.String()))
    for column in ("failure", "step"):
        op.add_column("result", sa.Column(column, sa.String()))
    kind = sa.case(*((batch.c.paused.like(sentence), kind) for sentence, kind in SENTENCES))
    op.execute(sa.update(batch).where(batch.c.paused.is_not(None)).values(pause_kind=kind))
    _fill_failures(op.get_bind())


def _fill_failures(connection: sa.Connection) -> None:
    """In slices: the answers of a batch may be larger than memory."""
    set_failure = sa.update(result).where(result.c.job_id == sa.bindparam("id"))
    set_failure = set_failure.values(failure=sa.bindparam("cls"), step=sa.bindparam("at"))
    after = ""
    while rows := _failed(connection, after):
        connection.execute(set_failure, [{"id": row.job_id, **_failure_of(row)} for row in rows])
        after = rows[-1].job_id


def _failed(connection: sa.Connection, after: str) -> Sequence[sa.Row[Any]]:
    columns: sa.Select[Any] = sa.select(result.c.job_id, result.c.body, result.c.error)
    failed = columns.join(job, job.c.id == result.c.job_id)
    page = failed.where(job.c.state == "failed", result.c.job_id > after).order_by(result.c.job_id).limit(SLICE)
    return connection.execute(page).all()


def _failure_of(row: sa.Row[Any]) -> dict[str, str | None]:
    """The class is the code of our own error, or next to the provider's; the step is next to either."""
    try:
        document = json.loads(row.body if row.error is None else row.error)
        extra_fields = document.get("extra_fields") or {}
        cls = document.get("code") if row.error is not None else extra_fields.get("failure")
        step = extra_fields.get("step")
    except (AttributeError, TypeError, ValueError):  # the content was removed, or is not an object
        cls = step = None
    known = isinstance(cls, str) and cls in CLASSES
    return {"cls": cls if known else "unknown", "at": step if isinstance(step, str) else None}
