"""The schema of a new store, made at once: all migrations one after the other take longer than the command that came first."""

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateIndex, CreateTable

from lily.storage import schema

# What `schema` leaves out, because it is on the path of every command and would load both dialects for it.
_PARTIAL = {"run_unwritten": "written = 0", "run_by_key": '"key" is not null'}
_FIRST = {"alerts.cursor": "0", "audit.head": "0 "}  # rows of `meta`: nothing has ended, nothing has changed


def make(connection: Connection) -> None:
    """Bring an empty database to HEAD. Raises the driver's errors."""
    for table in schema.metadata.sorted_tables:
        connection.execute(CreateTable(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            told = str(CreateIndex(index).compile(dialect=connection.dialect))
            only = _PARTIAL.get(str(index.name))
            connection.execute(text(f"{told} where {only}" if only else told))
    connection.execute(schema.meta.insert(), [{"key": key, "value": value} for key, value in _FIRST.items()])
    connection.execute(
        text("create table alembic_version (version_num varchar(32) not null, constraint alembic_version_pkc primary key (version_num))")
    )
    connection.execute(text("insert into alembic_version (version_num) values (:head)"), {"head": schema.HEAD})
