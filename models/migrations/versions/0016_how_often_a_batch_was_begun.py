"""attempts to fill a batch"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch", sa.Column("fill_tries", sa.Integer(), nullable=False, server_default="0"))
