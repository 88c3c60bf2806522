"""wait reasons of jobs, from sentences to JSON"""

import json
import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

SENTENCE = re.compile(
    r"(?P<reason>[^:]+?) at (?P<provider>[^/\s:]+)/(?P<model>\S+?)(?: \(account (?P<account>\S+)\))?", re.DOTALL
)
"""The form in which workers wrote them if one deployment was the reason; others are kept unchanged."""

SLICE = 2_000

job = sa.table("job", sa.column("id"), sa.column("waiting"))


def upgrade() -> None:
    op.execute("ALTER TABLE job RENAME COLUMN wait_reason TO waiting")
    connection = op.get_bind()
    set_waiting = sa.update(job).where(job.c.id == sa.bindparam("job_id")).values(waiting=sa.bindparam("document"))
    after = ""
    while rows := _put_back(connection, after):
        connection.execute(set_waiting, [{"job_id": row.id, "document": _document(row.waiting)} for row in rows])
        after = rows[-1].id


def _put_back(connection: sa.Connection, after: str) -> Sequence[sa.Row[Any]]:
    rows: sa.Select[Any] = sa.select(job.c.id, job.c.waiting).where(job.c.waiting.is_not(None), job.c.id > after)
    return connection.execute(rows.order_by(job.c.id).limit(SLICE)).all()


def _document(sentence: str) -> str:
    found = SENTENCE.fullmatch(sentence)
    waiting = {"reason": sentence, "hold": "put_back"}
    if found is not None:
        at = {name: found[name] for name in ("provider", "model", "account") if found[name]}
        waiting |= {"reason": f"{found['reason']} at {found['provider']}/{found['model']}", **at}
    return json.dumps(waiting, ensure_ascii=False)
