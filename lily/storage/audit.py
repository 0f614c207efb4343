"""The audit: who changed what, and why, written in the transaction that changes it; each row is chained to the one before."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from lily.storage import schema
from lily.storage.rows import dump


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts: a person's or program's name, through what (`cli`, `api`, `supervisor`, `scheduler`), and in which request."""

    name: str
    kind: str = "cli"
    request_id: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `action` is noun.verb, `object` the id of what was changed; `before` and `after` are plain JSON."""

    action: str
    object: str = ""
    job_id: str = ""
    reason: str = ""
    trace_id: str = ""
    before: Any = None
    after: Any = None


def record(connection: Connection, actor: Actor, change: Change, at: str) -> None:
    """Append a row, inside the transaction that makes the change (`writing`, so that no two appends cross). `at` is a stamp."""
    record_all(connection, actor, [change], at)


def record_all(connection: Connection, actor: Actor, changes: Sequence[Change], at: str) -> None:
    """The same for several changes, in their order."""
    a = schema.audit.c
    last = connection.execute(select(a.digest).order_by(a.sequence.desc()).limit(1)).scalar() or ""
    rows = []
    for change in changes:
        row = _row(actor, change, at)
        last = digest(row, last)
        rows.append({**row, "digest": last})
    if rows:
        connection.execute(insert(schema.audit), rows)


def _row(actor: Actor, change: Change, at: str) -> dict[str, str]:
    return {
        "at": at,
        "action": change.action,
        "object": change.object,
        "job_id": change.job_id,
        "actor": actor.name,
        "actor_kind": actor.kind,
        "reason": change.reason,
        "request_id": actor.request_id,
        "trace_id": change.trace_id,
        "before": dump(change.before),
        "after": dump(change.after),
    }


def digest(row: Mapping[str, str], last: str) -> str:
    """SHA-256 over the row's fields in their order by name and the digest of the row before it."""
    body = msgspec.json.encode([last, *(row[name] for name in sorted(row))])
    return hashlib.sha256(body).hexdigest()
