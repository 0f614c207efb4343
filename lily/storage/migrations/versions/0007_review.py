"""Reviews of all jobs, and what they found."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "review",
        sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
        sa.Column("at", _bytewise, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("run_id", _bytewise),
        sa.Column("jobs", sa.Integer, nullable=False),
        sa.Column("windows", sa.BigInteger, nullable=False),
        sa.Column("unseen", sa.Integer, nullable=False),
        sa.Column("opened", sa.Integer, nullable=False),
        sa.Column("reopened", sa.Integer, nullable=False),
        sa.Column("closed", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "finding",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("kind", _bytewise, primary_key=True),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("look", sa.Text, nullable=False),
        sa.Column("mend", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("found_at", sa.Text, nullable=False),
        sa.Column("closed_at", _bytewise),
        sa.Column("acked_at", sa.Text),
        sa.Column("acked_by", sa.Text, nullable=False, server_default=""),
        sa.Column("ack_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("ack_until", _bytewise),
    )
    op.create_index("finding_by_close", "finding", ["closed_at", "severity"])
