"""The copy that is made before a schema is brought up to date. Everything blocks."""

import os
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Engine, MetaData, Table, inspect, select

from lily.errors import Code, LilyError
from lily.storage import copies, server_copies
from lily.storage.database import unavailable
from lily.storage.files import NEW, make_folder, sync_path
from lily.storage.schema import HEAD

KEPT = 5  # copies from before an upgrade
_PREFIX = "upgrade-"
_ROWS_AT_ONCE = 1000


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """A schema that was brought up to date, and where the copy from before is."""

    before: str
    after: str
    backup: Path


def moment(at: datetime) -> str:
    """`at` as part of a file's name: sorts by time."""
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond:06d}Z"


def copy_before_upgrade(engine: Engine, folder: Path, found: str, at: datetime) -> Upgrade:
    """Copy the store, of which the schema is `found`. A transaction that writes may be open as long as it has written nothing.

    Raises `disk_full` and `store_unavailable`: what can't be copied is not upgraded.
    """
    name = f"{_PREFIX}{found}-to-{HEAD}-{moment(at)}"
    make_folder(folder)
    try:
        backup = _copied(engine, folder, name)
    except (sqlite3.Error, OSError) as error:
        raise unavailable(error, str(folder), str(folder / name)) from error
    _drop_old(folder)
    return Upgrade(before=found, after=HEAD, backup=backup)


def _copied(engine: Engine, folder: Path, name: str) -> Path:
    if engine.dialect.name == "sqlite":
        copies.copy_file(Path(engine.url.database or ""), folder / f"{name}.sqlite3")
        return folder / f"{name}.sqlite3"
    try:
        server_copies.dump(engine, folder / f"{name}.dump")
        return folder / f"{name}.dump"
    except LilyError as error:
        if error.code is not Code.FEATURE_UNAVAILABLE:
            raise
    return _as_lines(engine, folder / f"{name}.jsonl")  # without PostgreSQL's own programs: all that there is, for a person to read


def _as_lines(engine: Engine, path: Path) -> Path:
    """Every row of every table, as the database has them: its schema is not the one that this Lily knows."""
    found = MetaData()
    with engine.connect() as connection, os.fdopen(os.open(path, NEW, 0o600), "wb") as file:
        found.reflect(connection, only=inspect(connection).get_table_names())
        for table in found.sorted_tables:
            for row in _rows(connection, table):
                file.write(msgspec.json.encode({"table": table.name, "row": row}) + b"\n")
    sync_path(path)
    return path


def _rows(connection: Any, table: Table) -> Any:
    names = [column.name for column in table.columns]
    for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(table)):
        yield dict(zip(names, row, strict=True))


def _drop_old(folder: Path) -> None:
    """The last few are kept: by their last part, the time."""
    ours = sorted((path for path in folder.glob(f"{_PREFIX}*-to-*") if path.is_file()), key=lambda path: path.name.partition("-to-")[2][5:])
    for path in ours[:-KEPT]:
        path.unlink(missing_ok=True)
