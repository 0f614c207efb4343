"""The audit: who changed what, and why, written in the transaction that changes it; each row is chained to the one before.

Rows are numbered without gaps, but for those that the row of a restore says it leaves out. The number and digest of the newest stand apart
in `meta`, so that a tail that was cut off is missed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from lily.identity import Actor as Actor  # where most look for it
from lily.identity import check_allowed
from lily.storage import schema
from lily.storage.rows import dump
from lily.storage.statements import Asked, ForRows
from lily.text import all_encodable, encodable

RESTORE = "store.restore"  # the one action whose row may leave out numbers: [first, last] in `after.left_out`
HEAD = "audit.head"  # the key of `meta` that holds "NUMBER DIGEST" of the newest row
_FIELDS = ("at", "action", "object", "job_id", "actor", "actor_kind", "reason", "request_id", "trace_id", "before", "after")
NAMES = tuple(sorted(_FIELDS))  # the order in which the digest takes them
_values = itemgetter(*NAMES)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `action` is noun.verb, `object` the id of what was changed; `before` and `after` are plain JSON."""

    action: str
    object: str = ""
    job_id: str = ""
    reason: str = ""
    trace_id: str = ""
    before: Any = None
    after: Any = None


class _Statements:
    """For one dialect: they are on the path of each submission."""

    def __init__(self) -> None:
        a, m = schema.audit, schema.meta
        newest = select(func.max(a.c.sequence)).scalar_subquery()
        self.head = Asked(select(newest, select(m.c.value).where(m.c.key == bindparam("key")).scalar_subquery()))
        self.add = ForRows(insert(a).inline(), ["sequence", *_FIELDS, "digest"])
        self.put = ForRows(update(m).where(m.c.key == bindparam("b_key")).values(value=bindparam("b_value")), ["b_value", "b_key"])
        self.make = ForRows(insert(m).inline(), ["key", "value"])


@lru_cache(maxsize=4)
def _statements(dialect: str) -> _Statements:
    return _Statements()


def record(connection: Connection, actor: Actor, change: Change, at: str) -> None:
    """Append a row, inside the transaction that makes the change (`writing`, so that no two appends cross). `at` is a stamp.

    Raises `actor_forbidden` for what a run may not do; nothing of the transaction is kept then.
    """
    record_all(connection, actor, [change], at)


def record_all(connection: Connection, actor: Actor, changes: Sequence[Change], at: str) -> None:
    """The same for several changes, in their order."""
    if not changes:
        return
    for change in changes:
        check_allowed(actor, change.action)
    number, last = _newest(connection)
    rows = []
    for change in changes:
        row, number = _row(actor, change, at), number + 1
        last = digest(row, last)
        rows.append({**row, "sequence": number, "digest": last})
    _statements(connection.dialect.name).add(connection, rows)
    _note(connection, number, last)


def _newest(connection: Connection) -> tuple[int, str]:
    """The newest row's number, whoever wrote it, and the head's digest: what was put in or cut off by hand is not what the chain says."""
    ((newest, head),) = _statements(connection.dialect.name).head(connection, key=HEAD)
    told, _, last = (head or "").partition(" ")
    return max(newest or 0, int(told) if told.isdecimal() else 0), last  # a head that is none was written by hand: `verify` says so


def _note(connection: Connection, number: int, last: str) -> None:
    statements = _statements(connection.dialect.name)
    if not statements.put(connection, [{"b_key": HEAD, "b_value": f"{number} {last}"}]):
        statements.make(connection, [{"key": HEAD, "value": f"{number} {last}"}])


def last_number(connection: Connection) -> int:
    """The last number that a row was given; 0 before the first one."""
    return _newest(connection)[0]


def leave_out(connection: Connection, last: int) -> list[int] | None:
    """Have no row get a number up to `last` any more; gives the first and the last of those that are left out, None where none is.

    The next row must be that of the restore and say so, in the same transaction: else `verify` takes them for taken out.
    """
    number, chained = _newest(connection)
    if last <= number:
        return None
    _note(connection, last, chained)
    return [number + 1, last]


def _row(actor: Actor, change: Change, at: str) -> dict[str, Any]:
    return {
        "at": at,
        "action": change.action,
        "object": encodable(change.object),  # a file's name may be no UTF-8
        "job_id": change.job_id,
        "actor": actor.name,
        "actor_kind": actor.kind,
        "reason": change.reason,
        "request_id": actor.request_id,
        "trace_id": change.trace_id or actor.trace_id,
        "before": _text(change.before),
        "after": _text(change.after),
    }


def _text(value: Any) -> str:
    try:
        return dump(value)
    except UnicodeEncodeError:  # a path in it
        return dump(all_encodable(value))


def digest(row: Mapping[Any, Any], last: str) -> str:
    """SHA-256 over the row's fields in their order by name and the digest of the row before it."""
    body = msgspec.json.encode([last, *_values(row)])
    return hashlib.sha256(body).hexdigest()
