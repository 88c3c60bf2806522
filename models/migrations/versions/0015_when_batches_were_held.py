"""when batches were paused"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("paused_at", "resumed_at"):
        op.add_column("batch", sa.Column(column, sa.Float()))
