"""What can still be read of a damaged SQLite store, put into a fresh one so that its rows agree with one another. Everything blocks.

Tables are read row by row from both ends up to where SQLite gives up; rows that make no sense are left out. Receipts know more of
runs that have ended than half of their rows, so of those only whole ones are taken over: the others come back from their receipts.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Integer, Table

from lily.runs import TERMINAL, ErrorInfo, EventName, Status
from lily.storage import schema
from lily.storage.copies import opened
from lily.storage.letter_box import COUNT as LETTERS
from lily.storage.maintenance import JSON_COLUMNS
from lily.storage.numbers import AUDIT, LEAP
from lily.text import json_of

_ROWS_AT_ONCE = 500
_LENIENT = "pragma writable_schema=on"  # nothing is written: without it SQLite refuses a file that is shorter than it says itself
_DERIVED = frozenset({"tally"})  # counted again
_TERMINAL = tuple(status.value for status in TERMINAL)
_EVENT_NAMES = frozenset(name.value for name in EventName)


class TableRows(msgspec.Struct, frozen=True, kw_only=True):
    """What was got out of a table. `whole`: nothing kept from it, as far as can be known."""

    table: str
    rows: int
    whole: bool


class Salvaged(msgspec.Struct, frozen=True, kw_only=True):
    """What a fresh store holds of a damaged one. `problem` says why nothing could be read; `lost` are runs that had not ended and
    whose rows are not complete enough to go on."""

    tables: list[TableRows] = []
    problem: str = ""
    lost: list[str] = []

    def rows(self, table: str) -> int:
        """How many rows of this table there are."""
        return next((each.rows for each in self.tables if each.table == table), 0)

    @property
    def damaged(self) -> list[str]:
        """Tables of which rows are missing, or may be."""
        return [each.table for each in self.tables if not each.whole]


def salvage(broken: Path, fresh: Path, has_receipt: Callable[[str, str], bool]) -> Salvaged:
    """Fill `fresh`, an empty store of this schema, from `broken`, a copy that nobody else uses and that may be written to.

    `has_receipt` says of a job and a run whether its receipt is on disk. Raises sqlite3.Error and OSError for `fresh` alone.
    """
    try:
        with closing(sqlite3.connect(broken, isolation_level=None)) as probe:
            probe.execute(_LENIENT)
            probe.execute("select count(*) from sqlite_master").fetchone()  # takes the log in, where it can be
    except sqlite3.DatabaseError as error:
        return Salvaged(problem=str(error))
    with closing(sqlite3.connect(fresh, isolation_level=None)) as here, opened(broken, alone=True) as there:
        there.execute(_LENIENT)
        there.text_factory = _text
        here.execute("begin immediate")
        here.execute("delete from meta")  # what the migrations put there is the old store's to say
        tables = [_copied(there, here, table) for table in schema.metadata.sorted_tables if table.name not in _DERIVED]
        lost = _agree(here, has_receipt)
        _go_on_counting(there, here, {each.table for each in tables if not each.whole})
        _keep_up(here)
        counted = [msgspec.structs.replace(each, rows=_count(here, each.table)) for each in tables]
        here.execute("commit")
        here.execute("pragma wal_checkpoint(truncate)")
    return Salvaged(tables=counted, lost=lost)


def _text(stored: bytes) -> str | bytes:
    """A text that is none is told apart with its row, and is no reason to stop reading there."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _keep_up(here: sqlite3.Connection) -> None:
    """Where its marks were not rescued: nobody is told of old failures again, and the audit goes on from its last row, beyond the last
    number that it gave: rows that are gone are missed."""
    put = "insert or ignore into meta (key, value) "
    here.execute(put + "select 'alerts.cursor', cast(coalesce(max(sequence), 0) as text) from event")
    number = "coalesce((select seq from sqlite_sequence where name = 'audit'), 0)"
    digest = "coalesce((select digest from audit order by sequence desc limit 1), '')"
    here.execute(f"{put} select 'audit.head', {number} || ' ' || {digest}")


def _count(here: sqlite3.Connection, table: str) -> int:
    return int(here.execute(f'select count(*) from "{table}"').fetchone()[0])


def _copied(there: sqlite3.Connection, here: sqlite3.Connection, table: Table) -> TableRows:
    names = _columns(there, table)
    if names is None:
        return TableRows(table=table.name, rows=0, whole=False)
    check, gaps = _checker(table, names), _Gaps()
    listed = ", ".join(f'"{name}"' for name in names)
    put = f'insert or ignore into "{table.name}" ({listed}) values ({", ".join("?" * len(names))})'
    wrong = 0
    for row in _rows(there, table.name, listed, gaps):
        if check(row):
            try:
                here.execute(put, row)
            except sqlite3.IntegrityError:
                wrong += 1
        else:
            wrong += 1
    return TableRows(table=table.name, rows=0, whole=not (wrong or gaps.found))


def _columns(there: sqlite3.Connection, table: Table) -> list[str] | None:
    """Those that both have; None where the table is not there or lacks one that must have a value."""
    try:
        held = {str(row[1]) for row in there.execute(f'pragma table_info("{table.name}")')}
    except sqlite3.DatabaseError:
        return None
    needed = {column.name for column in table.columns if not column.nullable and column.server_default is None}
    autoincrement = {column.name for column in table.columns if column.autoincrement is True}
    return [column.name for column in table.columns if column.name in held] if held and needed - autoincrement <= held else None


class _Gaps:
    """Whether a table could not be read from end to end."""

    found = False


def _rows(there: sqlite3.Connection, table: str, listed: str, gaps: _Gaps) -> Iterator[tuple[Any, ...]]:
    """From the front as far as it goes, then from the back down to there."""
    reached = yield from _from(there, f'select rowid, {listed} from "{table}" where rowid > ? order by rowid limit ?', -(2**63), 1, gaps)
    if gaps.found:
        backwards = f'select rowid, {listed} from "{table}" where rowid < ? and rowid > {reached} order by rowid desc limit ?'
        yield from _from(there, backwards, 2**63 - 1, -1, gaps)


def _from(there: sqlite3.Connection, query: str, start: int, step: int, gaps: _Gaps) -> Any:
    """Rows page by page; where a page can't be read, one by one. Gives the last row id."""
    at, size = start, _ROWS_AT_ONCE
    while True:
        try:
            page = there.execute(query, (at, size)).fetchall()
        except (sqlite3.DatabaseError, OverflowError):
            if size == 1:
                gaps.found = True
                return at
            size = 1
            continue
        for row in page:
            if (row[0] - at) * step <= 0:  # a damaged tree may lead in a circle
                gaps.found = True
                return at
            at = row[0]
            yield row[1:]
        if len(page) < size:
            return at


def _checker(table: Table, names: list[str]) -> Callable[[tuple[Any, ...]], bool]:
    """Whether a row is one that Lily could have written: of the right types, with JSON where JSON belongs."""
    columns = [table.columns[name] for name in names]
    whole = [isinstance(column.type, Integer) or "INT" in str(column.type).upper() for column in columns]
    nested = [name in JSON_COLUMNS.get(table.name, frozenset()) for name in names]

    def check(row: tuple[Any, ...]) -> bool:
        for value, column, number, json in zip(row, columns, whole, nested, strict=True):
            if value is None:
                if not column.nullable and not column.primary_key:
                    return False
                continue
            if not isinstance(value, int if number else str):
                return False
            if json and not _is_json(value):
                return False
        meaning = _MEANINGS.get(table.name)
        return meaning is None or meaning(dict(zip(names, row, strict=True)))

    return check


def _is_json(value: Any) -> bool:
    try:
        json_of(value)
    except (msgspec.DecodeError, TypeError):
        return False
    return True


def _run_makes_sense(row: dict[str, Any]) -> bool:
    try:
        Status(row["status"])
        if row.get("error"):
            json_of(row["error"], ErrorInfo)
    except (ValueError, msgspec.MsgspecError):
        return False
    return bool(row["run_id"])


def _event_makes_sense(row: dict[str, Any]) -> bool:
    return row["name"] in _EVENT_NAMES


_MEANINGS: dict[str, Callable[[dict[str, Any]], bool]] = {"run": _run_makes_sense, "event": _event_makes_sense}


# -- rows that agree with one another --------------------------------------------------------------


def _agree(here: sqlite3.Connection, has_receipt: Callable[[str, str], bool]) -> list[str]:
    """Take out what is only half there; gives the runs that had not ended and can't go on."""
    lost, halves = [], []
    for run_id, job_id, status, spec in here.execute(_HALF_RUNS).fetchall():
        ended = status in _TERMINAL
        if spec is None or (ended and has_receipt(job_id, run_id)):
            halves.append(run_id)
            lost += [] if ended else [run_id]
    _drop_runs(here, halves)
    here.execute("update run set events = max(events, (select coalesce(max(n), 0) from event where event.run_id = run.run_id))")
    for table in ("event", "attempt", "step", "approval_check"):
        here.execute(f"delete from {table} where run_id <> '' and run_id not in (select run_id from run)")
    _say_again(here)
    _end_chains(here)
    for table in ("trigger_version", "window"):
        here.execute(f'delete from "{table}" where job_id not in (select job_id from schedule)')
    here.execute("delete from tally")
    here.execute("insert into tally (status, runs) select status, count(*) from run group by status")
    here.execute("insert or replace into meta (key, value) select ?, count(*) from dead_letter", (LETTERS,))
    return sorted(lost)


def _say_again(here: sqlite3.Connection) -> None:
    """The first event of a run that has only that one follows from its row."""
    wanted = "select run_id, queued_at, trigger, spec_hash, trace_id from run where events = 1 and run_id not in (select run_id from event)"
    for run_id, queued_at, trigger, spec_hash, trace_id in here.execute(wanted).fetchall():
        data = msgspec.json.encode({"trigger": msgspec.Raw(trigger.encode()), "spec_hash": spec_hash, "trace_id": trace_id}).decode()
        here.execute(
            "insert into event (run_id, n, ts, name, data) values (?, 1, ?, ?, ?)", (run_id, queued_at, EventName.JOB_QUEUED.value, data)
        )


def _end_chains(here: sqlite3.Connection) -> None:
    """The last receipt of a job's chain is the one that no other names."""
    here.execute(
        "insert or ignore into receipt_head (job_id, run_id, receipt_sha256)"
        " select job_id, max(run_id), receipt_sha256 from run where receipt_sha256 is not null"
        " and run_id not in (select previous_run_id from run where previous_run_id is not null) group by job_id"
    )


_HALF_RUNS = """
select r.run_id, r.job_id, r.status, s.spec_hash from run r left join spec s on s.spec_hash = r.spec_hash
where s.spec_hash is null
   or (select count(*) from event e where e.run_id = r.run_id) <> r.events
   or (r.started_at is not null and r.tries + r.interruptions > (select count(*) from attempt a where a.run_id = r.run_id))
"""


def _drop_runs(here: sqlite3.Connection, run_ids: Collection[str]) -> None:
    for table in ("run", "event", "attempt", "step", "approval_check"):
        here.executemany(f"delete from {table} where run_id = ?", [(run_id,) for run_id in run_ids])


def _go_on_counting(there: sqlite3.Connection, here: sqlite3.Connection, damaged: Collection[str]) -> None:
    """Numbers of events, controls and audit rows are never given twice, also where the last ones are lost."""
    try:
        told = dict(there.execute("select name, seq from sqlite_sequence").fetchall())
    except sqlite3.DatabaseError:  # nobody can say how far they went
        reached = here.execute("select name, seq from sqlite_sequence").fetchall()
        told = {name: seq + LEAP for name, seq in reached if name in damaged and name != AUDIT}  # which has its head
    for name, number in told.items():
        if type(name) is not str or type(number) is not int or name not in schema.metadata.tables:
            continue
        if here.execute("update sqlite_sequence set seq = max(seq, ?) where name = ?", (number, name)).rowcount == 0:
            here.execute("insert into sqlite_sequence (name, seq) values (?, ?)", (name, number))
