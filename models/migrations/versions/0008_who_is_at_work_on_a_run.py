"""one process at a time owns a run"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("taken_until", sa.Float(), nullable=False, server_default="0"))
