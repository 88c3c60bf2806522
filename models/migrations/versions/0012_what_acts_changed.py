"""changed values in the audit log"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("old", "new"):
        op.add_column("audit", sa.Column(name, sa.Text()))
    op.add_column("audit", sa.Column("times", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("audit", sa.Column("last_at", sa.Float()))
    op.create_index("ix_audit_actor", "audit", ["action", "actor", "at"])
    op.create_index("ix_audit_tenant", "audit", ["tenant", "id"])
