"""The schema's version: a new store is made with it, an older one is brought up to it, and a newer one is refused."""

import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError

from lily.errors import Code, LilyError
from lily.storage.database import shown_url, store_errors, writing
from lily.storage.schema import HEAD

_ONE_MIGRATES = threading.Lock()  # Alembic keeps what it works on in globals


def upgrade(engine: Engine, before: Callable[[str], None] | None = None) -> bool:
    """Bring the schema to HEAD; gives whether there was none. Raises `store_schema_newer` when a later Lily wrote it.

    `before` is told which schema is there, of a store that is not empty; what it raises leaves all as it is.
    """
    with store_errors(engine), engine.connect() as connection:
        if _version(connection) == HEAD:
            return False
    with _ONE_MIGRATES:
        return _migrate(engine, before)


def _version(connection: Connection) -> str | None:
    try:
        return connection.execute(text("select version_num from alembic_version")).scalar()
    except (OperationalError, DBAPIError):
        connection.rollback()
        return None


def _migrate(engine: Engine, before: Callable[[str], None] | None) -> bool:
    with writing(engine) as connection:
        if _table_version(connection) is None:
            from lily.storage import fresh  # once in the life of a store

            fresh.make(connection)
            return True
    # Alembic takes as long to import as all the rest: only a changed schema pays for it.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            from lily.storage.server_copies import outlast  # the copy from before is made beside this transaction

            outlast(connection)
        found = _table_version(connection) or ""
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found not in known:
            raise LilyError(
                Code.STORE_SCHEMA_NEWER,
                f"the store's schema is {found}, this Lily knows up to {HEAD}",
                where=shown_url(engine),
                hint="use the Lily that wrote it, or a later one",
            )
        if found == HEAD:
            return False  # another process was first
        if before is not None:
            before(found)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return False


def _table_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()
