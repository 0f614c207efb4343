"""Looks at conditions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_bytewise = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "evaluation",
        sa.Column("job_id", _bytewise, primary_key=True),
        sa.Column("at", _bytewise, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("predicate", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("held", sa.Text, nullable=False),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("observed", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("evaluated_at", sa.Text, nullable=False),
        sa.Column("duration_us", sa.BigInteger, nullable=False),
    )
