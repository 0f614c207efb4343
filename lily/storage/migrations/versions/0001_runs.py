"""Runs, attempts, events, steps, pinned specs and the lives of their owners."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table("meta", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "life",
        sa.Column("life", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("start_ticks", sa.BigInteger),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Text),
    )
    op.create_table("spec", sa.Column("spec_hash", sa.Text, primary_key=True), sa.Column("body", sa.Text, nullable=False))
    _create_run()
    op.create_table(
        "attempt",
        sa.Column("run_id", _bytewise, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("will_retry", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", sa.Text),
    )
    op.create_table(
        "event",
        sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
        sa.Column("run_id", _bytewise, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("ts", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("event_of_run", "event", ["run_id", "n"], unique=True)
    op.create_table(
        "step",
        sa.Column("run_id", _bytewise, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
    )


def _create_run() -> None:
    op.create_table(
        "run",
        sa.Column("run_id", _bytewise, primary_key=True),
        sa.Column("job_id", _bytewise, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("queued_at", sa.Text, nullable=False),
        sa.Column("enqueued_at", _bytewise, nullable=False),
        sa.Column("spec_hash", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("lineage", sa.Text, nullable=False),
        sa.Column("approvals", sa.Text, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text),
        sa.Column("ended_at", sa.Text),
        sa.Column("next_attempt_at", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("interruptions", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("events", sa.Integer, nullable=False, server_default="0"),
        sa.Column("cancel", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("pid", sa.Integer),
        sa.Column("host", sa.Text, nullable=False, server_default=""),
        sa.Column("written", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("run_queue", "run", ["status", "priority", "enqueued_at", "run_id"])
    op.create_index("run_by_job", "run", ["job_id", "run_id"])
    unwritten, keyed = sa.text("written = 0"), sa.text("key is not null")
    op.create_index("run_unwritten", "run", ["status", "run_id"], sqlite_where=unwritten, postgresql_where=unwritten)
    op.create_index("run_by_key", "run", ["key"], sqlite_where=keyed, postgresql_where=keyed)
