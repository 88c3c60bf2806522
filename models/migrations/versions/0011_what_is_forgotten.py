"""what is forgotten: a chain that no job has any more, the words about a key, the answer to a request"""

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
