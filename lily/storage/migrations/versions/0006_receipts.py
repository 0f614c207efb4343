"""Receipts: the digest of each and its link to the one before; the last one of each job; those that went and are still named."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0003"

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("run", sa.Column("receipt_sha256", sa.Text))
    op.add_column("run", sa.Column("previous_run_id", _bytewise))
    op.add_column("run", sa.Column("previous_sha256", sa.Text))
    op.create_table(
        "receipt_head",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("run_id", _bytewise, nullable=False),
        sa.Column("receipt_sha256", sa.Text, nullable=False),
    )
    op.create_table(
        "receipt_gone",
        sa.Column("run_id", _bytewise, primary_key=True),
        sa.Column("job_id", _bytewise, nullable=False),
        sa.Column("receipt_sha256", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
