"""The subject `sqlite`: one value that a query reads. Nothing can be written: not by the query, and not by opening the file."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lily.conditions.define import Look, Stop, subject
from lily.conditions.places import first_bytes, place_of
from lily.conditions.verdict import EvaluationCode, EvaluationError
from lily.subject_specs import SqliteSubject
from lily.text import counted

_STEPS = 1000  # of SQLite's machine between two looks at whether anybody still waits
_LONGEST = 1024 * 1024  # bytes of one value
_BUSY_SECONDS = 2.0
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_FAR_REACHING = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})


@subject("sqlite", summary="One value that a query reads from an SQLite file.", params=SqliteSubject, capabilities=["fs.read"])
async def sqlite(look: Look, params: SqliteSubject) -> Any:
    """No row, or null, is a missing value."""
    return await look.blocking(lambda stop: _value(place_of(look, params.path), params, stop))


def _value(path: Path, params: SqliteSubject, stop: Stop) -> Any:
    try:
        with closing(_connect(path, params.path)) as connection:
            connection.set_progress_handler(stop.is_set, _STEPS)
            connection.set_authorizer(_authorized)
            cursor = connection.execute(params.query)
            rows, columns = cursor.fetchmany(2), len(cursor.description or ())
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _failed(error) from None
    except OSError as error:
        said = f"{params.path!r} can't be read: {error.strerror}"
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, said) from None
    if columns != 1 or len(rows) > 1:
        what = counted(columns, "column") if columns != 1 else "more than one row"
        raise EvaluationError(EvaluationCode.EVALUATION_FAILED, f"the query gives {what}; one value is compared")
    value = rows[0][0] if rows else None
    if isinstance(value, bytes):
        raise EvaluationError(
            EvaluationCode.EVALUATION_FAILED, "the query gives bytes, which are compared with nothing; hex() makes text of them"
        )
    return value


def _connect(path: Path, given: str) -> sqlite3.Connection:
    try:
        head = first_bytes(path, given, 20)
    except FileNotFoundError:
        raise EvaluationError(EvaluationCode.SUBJECT_NOT_FOUND, f"there is no file {given!r}") from None
    # To open a database whose changes go to a log SQLite makes that log, and an index of it, when they are not there; then nobody writes.
    logged = head[18:20] == b"\x02\x02"
    alone = logged and not os.path.exists(f"{path}-wal")
    uri = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if alone else "")
    # check_same_thread: opened and used in one worker thread.
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.execute("pragma query_only=on")
    connection.execute("pragma trusted_schema=off")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    return connection


def _authorized(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action in _READING or (action == sqlite3.SQLITE_FUNCTION and second not in _FAR_REACHING):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _failed(error: Exception) -> EvaluationError:
    said = str(error)
    if "not authorized" in said or "prohibited" in said:
        return EvaluationError(EvaluationCode.FORBIDDEN, f"the query may only read: {said}")
    if said == "interrupted":
        return EvaluationError(EvaluationCode.TIMEOUT, "the query took too long")
    return EvaluationError(EvaluationCode.EVALUATION_FAILED, f"the query failed: {said}")
