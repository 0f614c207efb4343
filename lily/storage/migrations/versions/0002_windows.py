"""The window ledger: schedules, versions of triggers, windows, controls; runs that wait for the scheduler's word."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("run", sa.Column("held", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "schedule",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("state", sa.Text, nullable=False, server_default="active"),
        sa.Column("until", sa.Text),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("by", sa.Text, nullable=False, server_default=""),
        sa.Column("changed_at", sa.Text),
        sa.Column("set_id", sa.Text),
        sa.Column("settled", _bytewise, nullable=False),
        sa.Column("spec_hash", sa.Text),
    )
    op.create_table(
        "trigger_version",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("since", _bytewise, nullable=False),
        sa.Column("until", _bytewise),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("timezone", sa.Text),
        sa.Column("spec_hash", sa.Text, nullable=False),
    )
    op.create_table(
        "window",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("at", _bytewise, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("run_id", _bytewise),
        sa.Column("into_at", sa.Text),
        sa.Column("code", sa.Text, nullable=False, server_default=""),
        sa.Column("recorded_at", sa.Text, nullable=False),
    )
    op.create_table(
        "control",
        sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
        sa.Column("job_id", _bytewise, nullable=False),
        sa.Column("at", _bytewise, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("until", sa.Text),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("by", sa.Text, nullable=False, server_default=""),
        sa.Column("set_id", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("control_by_job", "control", ["job_id", "sequence"])
