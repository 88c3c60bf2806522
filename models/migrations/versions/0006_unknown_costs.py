"""unknown costs"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("attempt", "result"):
        op.add_column(table, sa.Column("unpriced", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tally", sa.Column("unpriced", sa.Integer(), nullable=False, server_default="0"))
