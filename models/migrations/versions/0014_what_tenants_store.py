"""stored bytes of tenants"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in (("job", "bytes"), ("batch", "stored_bytes"), ("tally", "bytes")):
        op.add_column(table, sa.Column(column, sa.BigInteger(), nullable=False, server_default="0"))
    for column in ("stored_bytes", "open_batches"):
        op.add_column("tenant", sa.Column(column, sa.BigInteger()))
    singles = sa.text("batch_id = ''")
    op.create_index(
        "ix_job_stored", "job", ["tenant", "bytes", "answer_bytes"], sqlite_where=singles, postgresql_where=singles
    )
    op.create_index("ix_batch_input_file_id", "batch", ["input_file_id"])
