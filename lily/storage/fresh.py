"""The schema of a new store, made at once: all migrations one after the other take longer than the command that came first."""

from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateIndex, CreateTable

from lily.errors import Code, LilyError
from lily.storage import schema

# What `schema` leaves out, because it is on the path of every command and would load both dialects for it.
_PARTIAL = {"run_unwritten": "written = 0", "run_by_key": '"key" is not null'}
_ANY_TEXT = ("UTF8", "SQL_ASCII")  # the latter, of a cluster made with LANG=C, keeps bytes as they come
MADE_RIGHT = "createdb --encoding=UTF8 --template=template0 NAME"
_FIRST = {"alerts.cursor": "0", "audit.head": "0 "}  # rows of `meta`: nothing has ended, nothing has changed


def make(connection: Connection) -> None:
    """Bring an empty database to HEAD. Raises the driver's errors, and `config_invalid` for one that can't hold every text."""
    if connection.dialect.name == "postgresql":
        _check_encoding(connection)
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


def _check_encoding(connection: Connection) -> None:
    found = wrong_encoding(connection)
    if found:
        raise LilyError(
            Code.CONFIG_INVALID,
            f"the database's encoding is {found}, which can't hold every text that a run may say",
            where="store.url",
            hint=f"make one with UTF-8: {MADE_RIGHT}",
        )


def wrong_encoding(connection: Connection) -> str:
    """The encoding of a PostgreSQL database that can't hold every text; empty for one that can."""
    found = str(connection.execute(text("show server_encoding")).scalar_one())
    return "" if found in _ANY_TEXT else found
