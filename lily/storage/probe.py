"""A look at the store that changes nothing of it, makes nothing, and never raises: for health. Everything blocks."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from lily.errors import LilyError
from lily.health import StoreFacts
from lily.storage.database import check_log, open_engine, said_by, sqlite_path
from lily.storage.poolers import NO_SESSION, keeps_no_session
from lily.storage.schema import HEAD, metadata

BUSY_SECONDS = 1.0
CHECKED_BYTES = 4 * 1024 * 1024  # a store up to this size is looked through in milliseconds; of a larger one a part is


def probe(url: str, *, database_file: Path, folders: Sequence[Path]) -> StoreFacts:
    """How the store at `url`, or in `database_file`, stands. `folders` are those whose disks must have room."""
    path = sqlite_path(url, database_file)
    if path is None:
        return _server(url, free_share(folders))
    return _file(path, free_share([path.parent, *folders]))


def free_share(folders: Sequence[Path]) -> float:
    """The least share of a disk that is free, over the disks of these folders; 1.0 where none of them is there."""
    found = []
    for folder in folders:
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue
        if disk.f_blocks:
            found.append(disk.f_bavail / disk.f_blocks)
    return min(found, default=1.0)


def _file(path: Path, free: float) -> StoreFacts:
    try:
        check_log(path)
    except LilyError as error:
        return StoreFacts(problem=error.message, head=HEAD, free=free)
    if not path.exists():
        return StoreFacts(there=False, head=HEAD, free=free)
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        ) as database:
            found = database.execute("select version_num from alembic_version").fetchone()
            damage = _damage(database, _size(path))
            writable, busy, why = _writable(database)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return StoreFacts(there=False, head=HEAD, free=free)  # a file without a schema: the next start makes it
        return StoreFacts(problem=f"can't be read: {error}", head=HEAD, free=free)
    except sqlite3.Error as error:
        return StoreFacts(problem=f"damaged: {error}", head=HEAD, free=free)
    version = str(found[0]) if found else ""
    return StoreFacts(
        problem=damage,
        schema=version,
        head=HEAD,
        newer=version > HEAD,
        writable=writable,
        why_not=why,
        busy=busy,
        log_bytes=_size(path.with_name(path.name + "-wal")),
        free=free,
    )


def _damage(database: sqlite3.Connection, size: int) -> str:
    """What a look of bounded length finds wrong. Raises sqlite3.DatabaseError for what can't be read at all."""
    table = "" if size <= CHECKED_BYTES else "('meta')"  # one that stays small: its pages, and those that lead to it
    (found,) = database.execute(f"pragma quick_check{table}").fetchone()
    return "" if found == "ok" else f"damaged: {found}"


def _writable(database: sqlite3.Connection) -> tuple[bool, bool, str]:
    """(writable, busy, why not): tried, and taken back."""
    try:
        database.execute("begin immediate")
        try:
            database.execute("insert into meta values ('probe', '')")  # to begin is allowed on a file that may only be read
        finally:
            if database.in_transaction:
                database.execute("rollback")
    except sqlite3.OperationalError as error:
        busy = "locked" in str(error)
        return busy, busy, "" if busy else str(error)
    return True, False, ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# The first table, or sequence of one, of which the role may not do all that Lily does with it.
_DENIED = text("""
select relname from pg_class c where pg_table_is_visible(oid) and case relkind
  when 'r' then relname = any(:tables) and not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
    and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete'))
  when 'S' then not has_sequence_privilege(oid, 'usage, update') and exists (
    select from pg_depend d join pg_class t on t.oid = d.refobjid where d.objid = c.oid and t.relname = any(:tables))
  end order by relname limit 1
""")
_TAKES_NO_WRITES = "the server takes no writes (transaction_read_only)"
_NO_PLACE = "there is no schema on the search_path of store.url in which its user may make tables"
_MAY_MAKE = text("select has_schema_privilege(current_schema(), 'create')")  # null: there is none that may be used


def _is_pooled(engine: Engine, connection: Connection) -> bool:
    """Whether a pooler keeps no session. Not known where the server has no place for a second connection: one tells all the rest."""
    try:
        return keeps_no_session(engine, connection)
    except OperationalError:
        if connection.invalidated:
            raise
        return False


def _server(url: str, free: float) -> StoreFacts:
    try:
        engine = open_engine(url, database_file=Path())
    except LilyError as error:
        return StoreFacts(problem=error.message, head=HEAD, free=free)
    try:
        with engine.connect() as connection:
            if _is_pooled(engine, connection):
                return StoreFacts(problem=NO_SESSION, head=HEAD, free=free)
            read_only = connection.execute(text("show transaction_read_only")).scalar()
            there = connection.execute(text("select to_regclass('alembic_version')")).scalar()
            if not there:
                from lily.storage.fresh import MADE_RIGHT, wrong_encoding  # once in the life of a store

                if encoding := wrong_encoding(connection):
                    said = f"would be in a database of the encoding {encoding}, which can't hold every text; one of UTF-8 can: {MADE_RIGHT}"
                    return StoreFacts(problem=said, head=HEAD, free=free)
                no_place = _TAKES_NO_WRITES if read_only == "on" else "" if connection.execute(_MAY_MAKE).scalar() else _NO_PLACE
                return StoreFacts(there=False, head=HEAD, writable=not no_place, why_not=no_place, free=free)
            version = connection.execute(text("select version_num from alembic_version")).scalar()
            denied = connection.execute(_DENIED, {"tables": list(metadata.tables)}).scalar()
    except SQLAlchemyError as error:
        return StoreFacts(problem=f"can't be reached: {said_by(engine, error)}", head=HEAD, free=free)
    finally:
        engine.dispose()
    refused = f"the user of store.url may not write to {denied}" if denied else ""
    if read_only == "on":
        refused = _TAKES_NO_WRITES
    found = str(version or "")
    return StoreFacts(schema=found, head=HEAD, newer=found > HEAD, writable=not refused, why_not=refused, free=free)
