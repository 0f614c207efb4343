"""Copies of the store: folding SQLite's log into its file, a copy of the file, and every row as a line of JSON. Everything blocks."""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.storage import schema
from lily.storage.audit import Actor, Change, record
from lily.storage.database import BUSY_SECONDS, store_errors, writing
from lily.storage.files import NEW, make_folder
from lily.storage.store import Store

TABLES = tuple(schema.metadata.tables)
_ROWS_AT_ONCE = 1000
READERS_SECONDS = 2.0  # how long a checkpoint waits for those who read
# Columns that hold JSON: a line has what they say, and not a text with quotes in it.
JSON_COLUMNS: dict[str, frozenset[str]] = {
    "run": frozenset({"trigger", "lineage", "approvals", "error", "result", "cancel"}),
    "attempt": frozenset({"error"}),
    "event": frozenset({"data"}),
    "step": frozenset({"value"}),
    "spec": frozenset({"body"}),
    "trigger_version": frozenset({"trigger"}),
    "dead_letter": frozenset({"attempts"}),
    "approval_check": frozenset({"labels"}),
    "audit": frozenset({"before", "after"}),
    "finding": frozenset({"evidence"}),
    "alert_delivery": frozenset({"log"}),
    "evaluation": frozenset({"observed"}),
}


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint did: whether the whole log is in the file now, and how many pages of it there were and are."""

    done: bool
    log_pages: int
    moved_pages: int


def database_path(store: Store) -> Path | None:
    """SQLite's file; None on PostgreSQL."""
    return Path(store.engine.url.database or "") if store.engine.dialect.name == "sqlite" else None


def checkpoint(store: Store, actor: Actor, reason: str, at: datetime) -> Checkpoint:
    """Move SQLite's log of changes into its file and cut the log, so that the file alone is a copy of all. Audited before it is done: a
    row that came after it would be in the log.

    Not done while somebody reads from before it. Raises `feature_unavailable` on PostgreSQL, which has no such log.
    """
    if database_path(store) is None:
        said = "PostgreSQL keeps its own log and needs no checkpoint of Lily's"
        raise LilyError(Code.FEATURE_UNAVAILABLE, said, where="store.url", hint="pg_dump makes a copy of the database while it is used")
    with writing(store.engine) as connection:
        record(connection, actor, Change(action="store.checkpoint", reason=reason, after={"asked": True}), stamp(at))
    with store_errors(store.engine), closing(store.engine.raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.execute(f"pragma busy_timeout={int(1000 * READERS_SECONDS)}")
        busy, log, moved = cursor.execute("pragma wal_checkpoint(truncate)").fetchone()
        cursor.execute(f"pragma busy_timeout={int(1000 * BUSY_SECONDS)}")
    return Checkpoint(done=not busy, log_pages=max(log, 0), moved_pages=max(moved, 0))


def back_up(store: Store, folder: Path) -> Path:
    """A copy of the store in `folder`: SQLite's file, or every row as a line of JSON. May be called while a transaction is open
    that has written nothing yet."""
    path = database_path(store)
    if path is None:
        return _write_lines(folder / "store.jsonl", rows(store))
    copy = folder / path.name
    _new(copy).close()  # for this user alone
    with store_errors(store.engine), closing(store.engine.raw_connection()) as raw, closing(sqlite3.connect(copy)) as there:
        source: Any = raw.driver_connection
        source.backup(there, pages=1024)
    return copy


def _write_lines(path: Path, lines: Iterator[bytes]) -> Path:
    with _new(path) as file:
        for line in lines:
            file.write(line + b"\n")
    return path


def _new(path: Path) -> Any:
    return os.fdopen(os.open(path, NEW, 0o600), "wb")


def index_artifacts(runs: Path, path: Path) -> int:
    """Write a line of JSON for each run's folder under `runs`: job, run, and its files with their sizes. Gives how many there are."""
    make_folder(path.parent)
    count = 0
    with _new(path) as file:
        for job in sorted(runs.iterdir()) if runs.is_dir() else []:
            for run in sorted(job.iterdir()) if job.is_dir() and not job.is_symlink() else []:
                files = [{"name": each.name, "bytes": each.lstat().st_size} for each in sorted(run.iterdir())] if run.is_dir() else []
                file.write(msgspec.json.encode({"job_id": job.name, "run_id": run.name, "files": files}) + b"\n")
                count += 1
    return count


def rows(store: Store, tables: Collection[str] = ()) -> Iterator[bytes]:
    """Every row of these tables, or of all, as a line of JSON: {"table", "row"}. One snapshot, read a page at a time."""
    isolated = {} if store.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with store_errors(store.engine), store.engine.connect().execution_options(**isolated) as connection, connection.begin():
        yield msgspec.json.encode({"table": "alembic_version", "row": {"version_num": schema.HEAD}})
        for table in schema.metadata.tables.values():
            if not tables or table.name in tables:
                yield from _rows_of(connection, table)


def _rows_of(connection: Connection, table: Table) -> Iterator[bytes]:
    names, nested = [column.name for column in table.columns], JSON_COLUMNS.get(table.name, frozenset())
    wanted = select(table).order_by(*table.primary_key.columns)
    for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(wanted):
        given = {name: _raw(value) if name in nested else value for name, value in zip(names, row, strict=True)}
        yield msgspec.json.encode({"table": str(table.name), "row": given})


def _raw(value: str | None) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(value.encode())
