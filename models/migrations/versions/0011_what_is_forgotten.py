"""deletion of unused chains, of messages about a key, and of the answer to a request"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_job_chain", "job", ["chain_id"])
    op.add_column("credential", sa.Column("job_id", sa.String(), nullable=True))
    op.create_index(
        "ix_idempotency_answered",
        "idempotency",
        ["object_id"],
        sqlite_where=sa.text("answer IS NOT NULL"),
        postgresql_where=sa.text("answer IS NOT NULL"),
    )
