"""The audit by actor, by action and by time; its rows without gaps in their numbers, and the newest one noted apart from them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("audit_by_actor", "audit", ["actor", "sequence"])
    op.create_index("audit_by_action", "audit", ["action", "sequence"])
    op.create_index("audit_by_time", "audit", ["at", "sequence"])
    connection = op.get_bind()
    last, digest = 0, ""
    # On PostgreSQL a transaction that was rolled back left a gap. The chain goes by the order, which stays.
    for sequence, found in connection.execute(sa.text("select sequence, digest from audit order by sequence")).all():
        last, digest = last + 1, found
        if sequence != last:
            connection.execute(sa.text("update audit set sequence = :to where sequence = :was"), {"to": last, "was": sequence})
    connection.execute(sa.text("delete from meta where key = 'audit.head'"))
    connection.execute(sa.text("insert into meta (key, value) values ('audit.head', :value)"), {"value": f"{last} {digest}"})
