"""blocked batches"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch", sa.Column("blocked", sa.Text(), nullable=True))
    op.add_column("webhook_delivery", sa.Column("data", sa.Text(), nullable=True))
