"""Dead letters, looks at approvals outside, runs counted by status, the audit chain; what became of a dead letter."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("run", sa.Column("retried_as", _bytewise))
    _create_dead_letter()
    op.create_table(
        "approval_check",
        sa.Column("run_id", _bytewise, primary_key=True),
        sa.Column("checked_at", sa.Text, nullable=False),
        sa.Column("next_at", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("labels", sa.Text, nullable=False, server_default="[]"),
    )
    op.create_table("tally", sa.Column("status", sa.Text, primary_key=True), sa.Column("runs", sa.Integer, nullable=False))
    op.execute("insert into tally (status, runs) select status, count(*) from run group by status")
    _create_audit()


def _create_dead_letter() -> None:
    op.create_table(
        "dead_letter",
        sa.Column("run_id", _bytewise, primary_key=True),
        sa.Column("job_id", _bytewise, nullable=False),
        sa.Column("added_at", _bytewise, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
    )
    op.create_index("dead_letter_by_age", "dead_letter", ["added_at", "run_id"])
    op.create_index("dead_letter_by_job", "dead_letter", ["job_id", "added_at", "run_id"])
    op.create_index("dead_letter_by_cause", "dead_letter", ["cause", "added_at", "run_id"])
    op.create_index("dead_letter_by_fingerprint", "dead_letter", ["fingerprint", "cause", "added_at", "run_id"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
        sa.Column("at", _bytewise, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("job_id", _bytewise, nullable=False, server_default=""),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("actor_kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("request_id", sa.Text, nullable=False, server_default=""),
        sa.Column("trace_id", sa.Text, nullable=False, server_default=""),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_job", "audit", ["job_id", "sequence"])
