"""a run is resumed by its lines"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "run_line",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("named", sa.Boolean(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("chain_id", sa.String(), nullable=False),
        sa.Column("extra", sa.Text(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("again_id", sa.String(), nullable=True),
        sa.Column("ask", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "version", "position"),
    )
    op.create_index("ix_run_line_request", "run_line", ["run_id", "request", "name"], unique=False)
    op.create_index("ix_run_line_name", "run_line", ["run_id", "version", "name"], unique=False)
    op.create_index("ix_run_line_job", "run_line", ["job_id"], unique=False)
