"""the size of answers stored with idempotency keys"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("idempotency", sa.Column("answer_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    answered = sa.text("answer IS NOT NULL")
    op.create_index(
        "ix_idempotency_stored",
        "idempotency",
        ["tenant", "answer_bytes"],
        sqlite_where=answered,
        postgresql_where=answered,
    )
