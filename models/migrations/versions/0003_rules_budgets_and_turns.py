"""rules, budgets and turns"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "provider_tally",
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("writer", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "writer", "day"),
    )
    op.create_table(
        "budget_grant",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("usd", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "period"),
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.add_column(sa.Column("weight", sa.Float(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("budget_usd", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("estimated_usd", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("unpriced_lines", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("canary_passed", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("waiting", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("waiting_at", sa.Float(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("delivered_at", sa.Float(), nullable=True))
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_output_tokens", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("delivered_at", sa.Float(), nullable=True))
        batch_op.create_index(
            "ix_job_delivered",
            ["delivered_at"],
            unique=False,
            sqlite_where=sa.text("delivered_at IS NOT NULL"),
            postgresql_where=sa.text("delivered_at IS NOT NULL"),
        )
    with op.batch_alter_table("worker", schema=None) as batch_op:
        batch_op.drop_column("draining")
    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.add_column(sa.Column("weight", sa.Float(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("require", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("forbid", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("store_content", sa.String(), nullable=True))
