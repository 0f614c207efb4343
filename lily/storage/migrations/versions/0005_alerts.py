"""Failures in a row by job, alerts, and what became of each at each sink; what ended before this is told to nobody."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alert_state",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("last_at", sa.Text, nullable=False),
        sa.Column("run_id", _bytewise, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("alert_id", _sequence, nullable=False, server_default="0"),
        sa.Column("verdict", sa.Text, nullable=False, server_default=""),
    )
    _create_alert()
    op.create_table(
        "alert_delivery",
        sa.Column("alert_id", _sequence, primary_key=True, autoincrement=False),
        sa.Column("sink", _bytewise, primary_key=True),
        sa.Column("job_id", _bytewise, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_at", _bytewise, nullable=False),
        sa.Column("last_at", sa.Text),
        sa.Column("note", sa.Text, nullable=False, server_default=""),
        sa.Column("log", sa.Text, nullable=False, server_default="[]"),
    )
    op.create_index("alert_delivery_due", "alert_delivery", ["state", "next_at", "alert_id"])
    op.create_index("alert_delivery_in_order", "alert_delivery", ["job_id", "sink", "alert_id"])
    op.execute("insert into meta (key, value) select 'alerts.cursor', cast(coalesce(max(sequence), 0) as text) from event")


def _create_alert() -> None:
    op.create_table(
        "alert",
        sa.Column("alert_id", _sequence, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("job_id", _bytewise, nullable=False),
        sa.Column("run_id", _bytewise, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("raised_at", _bytewise, nullable=False),
        sa.Column("sent_at", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_by_error", "alert", ["job_id", "fingerprint", "alert_id"])
    op.create_index("alert_by_age", "alert", ["raised_at", "alert_id"])
