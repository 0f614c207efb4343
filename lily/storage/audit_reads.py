"""Reading the audit: the newest rows that somebody asks for, and the whole chain, row by row. Everything blocks."""

from collections.abc import Iterator
from typing import Literal

import msgspec
from sqlalchemy import Connection, RowMapping, func, select

from lily.identity import KINDS
from lily.storage import schema
from lily.storage.audit import HEAD, RESTORE, digest
from lily.storage.database import reading, store_errors
from lily.storage.store import Store

_AT_ONCE = 1000
_A = schema.audit.c
_CHANGED = "it does not fit its digest: this row, or the one before it, was edited, or stands where another one stood"
_NEWEST = "the newest row has another digest than was noted when it was written: it was written again"
_NOTED = "the digest that was noted is another: the rows up to here were written again"

Kind = Literal["changed", "inserted", "missing", "truncated", "no_head", "other_head"]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it is stored; `before` and `after` are JSON text."""

    sequence: int
    at: str
    action: str
    object: str
    job_id: str
    actor: str
    actor_kind: str
    reason: str
    request_id: str
    trace_id: str
    before: str
    after: str
    digest: str


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: of this job, by this actor (a name, or one of KINDS), of this action or noun, since this stamp. Without any: all."""

    job_id: str = ""
    actor: str = ""
    action: str = ""
    since: str = ""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The first row that is not as the chain says. `at` and `action` are what stands in it now; None where it is not there."""

    kind: Kind
    sequence: int
    at: str | None
    action: str | None
    message: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a walk along the chain found: rows that hold, the newest of them with its digest, and the first fault."""

    rows: int
    sequence: int
    digest: str
    fault: Fault | None


def newest(store: Store, which: Which, limit: int) -> list[AuditEntry]:
    """The newest of these rows, newest first. A job, a name, a whole action and a time each have their index."""
    wanted = select(schema.audit).order_by(_A.sequence.desc()).limit(limit)
    if which.job_id:
        wanted = wanted.where(_A.job_id == which.job_id)
    if which.actor:
        wanted = wanted.where((_A.actor_kind if which.actor in KINDS else _A.actor) == which.actor)
    if which.action:
        noun = f"{which.action}."  # compared as it is: SQLite's LIKE takes capitals for small letters
        whole = "." in which.action
        wanted = wanted.where(_A.action == which.action if whole else func.substr(_A.action, 1, len(noun)) == noun)
    with reading(store.engine) as connection:
        if which.since:
            first = connection.execute(select(func.min(_A.sequence)).where(_A.at >= which.since)).scalar()
            if first is None:
                return []
            wanted = wanted.where(_A.sequence >= first, _A.at >= which.since)
        return [_entry(row._mapping) for row in connection.execute(wanted)]


def _entry(row: RowMapping) -> AuditEntry:
    """What somebody wrote there by hand may be no text."""
    texts = {str(key): str(value or "") for key, value in row.items() if key != "sequence"}
    return AuditEntry(sequence=row["sequence"], **texts)


def head(store: Store) -> tuple[int, str]:
    """(number, digest) of the newest row, as they stand apart from the rows; (0, "") before the first one."""
    with reading(store.engine) as connection:
        return _head(connection) or (0, "")


def _head(connection: Connection) -> tuple[int, str] | None:
    found = connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == HEAD)).scalar()
    if found is None:
        return None
    number, _, last = str(found).partition(" ")
    return (int(number), last) if number.isdecimal() else None


def verify(store: Store, noted: tuple[int, str] | None = None) -> Verified:
    """Walk along the whole chain, a page at a time, over one snapshot, to its end or its first fault.

    `noted` is the number and digest of a row, or the first characters of it, that somebody wrote down elsewhere.
    """
    isolated = {} if store.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with store_errors(store.engine), store.engine.connect().execution_options(**isolated) as connection, connection.begin():
        return _walk(_rows(connection), _head(connection), noted)


def _rows(connection: Connection) -> Iterator[RowMapping]:
    wanted = select(schema.audit).order_by(_A.sequence).limit(_AT_ONCE)
    rows = connection.execute(wanted).all()
    while rows:
        for row in rows:
            yield row._mapping
        rows = connection.execute(wanted.where(_A.sequence > rows[-1].sequence)).all()


def _walk(rows: Iterator[RowMapping], head: tuple[int, str] | None, noted: tuple[int, str] | None) -> Verified:
    last, count, before, number = "", 0, "", 0
    previous: RowMapping | None = None
    for row in rows:
        fault = _wrong(row, number + 1, last) or _left_out(row, number + 1, noted) or _other(row, noted, _NOTED)
        if fault is None and head is not None and row["sequence"] == head[0]:
            fault = _other(row, head, _NEWEST)
        if fault is not None:
            if fault.kind == "changed" and previous is not None and _chained(row, before):
                fault = _fault("inserted", previous, "this row was put in: the next one follows the one before it")
            return Verified(rows=count - (fault.kind == "inserted"), sequence=number, digest=last, fault=fault)
        previous, before, last, number, count = row, last, row["digest"], row["sequence"], count + 1
    return Verified(rows=count, sequence=number, digest=last, fault=_end(previous, number, head, noted))


def _wrong(row: RowMapping, expected: int, last: str) -> Fault | None:
    if not isinstance(row["sequence"], int) or row["sequence"] < expected:
        return _fault("inserted", row, "a row of this number was never written")
    if row["sequence"] > expected and not _leaves_out(row, expected):
        gone = row["sequence"] - expected
        said = "this row is gone" if gone == 1 else f"{gone} rows from this one on are gone"
        return Fault(kind="missing", sequence=expected, at=None, action=None, message=said)
    if not _chained(row, last):
        return _fault("changed", row, _CHANGED)
    return None


def _leaves_out(row: RowMapping, first: int) -> bool:
    """Whether this row says of the numbers before it, from `first` on, that a restore left them out."""
    if row["action"] != RESTORE:
        return False
    try:
        after = msgspec.json.decode(row["after"])
    except (msgspec.DecodeError, TypeError):
        return False
    return isinstance(after, dict) and after.get("left_out") == [first, row["sequence"] - 1]


def _left_out(row: RowMapping, expected: int, noted: tuple[int, str] | None) -> Fault | None:
    """What was noted is of a row that a restore took away."""
    if noted is None or not expected <= noted[0] < row["sequence"]:
        return None
    said = f"the restore of row {row['sequence']} ({row['at']}) left this row out: its `after.aside` says where the store before it is"
    return Fault(kind="missing", sequence=noted[0], at=None, action=None, message=said)


def _chained(row: RowMapping, last: str) -> bool:
    try:
        return bool(row["digest"] == digest(row, last))
    except (TypeError, ValueError, UnicodeEncodeError):  # something that no text column of Lily's holds
        return False


def _other(row: RowMapping, noted: tuple[int, str] | None, message: str) -> Fault | None:
    if noted is None or row["sequence"] != noted[0] or row["digest"].startswith(noted[1] or "-"):
        return None
    return _fault("other_head", row, message)


def _end(previous: RowMapping | None, number: int, head: tuple[int, str] | None, noted: tuple[int, str] | None) -> Fault | None:
    """What the end says: rows that were cut off, or put there by somebody else."""
    if noted is not None and noted[0] > number:
        return _gone(number, noted[0])
    if head is None:
        said = f"`meta` has no {HEAD}, which names the newest row: whether rows were cut off can't be known"
        return Fault(kind="no_head", sequence=number, at=None, action=None, message=said)
    if head[0] > number:
        return _gone(number, head[0])
    if head[0] < number and previous is not None:
        return _fault("inserted", previous, f"the newest row that was written is {head[0]}; this one was put behind it")
    return None


def _gone(number: int, last: int) -> Fault:
    return Fault(kind="truncated", sequence=number + 1, at=None, action=None, message=f"rows {number + 1} to {last} were cut off")


def _fault(kind: Kind, row: RowMapping, message: str) -> Fault:
    return Fault(kind=kind, sequence=row["sequence"], at=str(row["at"]), action=str(row["action"]), message=message)
