"""Storing a review: what it found, against what was known, in one transaction. Acknowledging a finding, and taking that back."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select, update

from lily.batched import batched
from lily.clock import parse_stamp, stamp
from lily.known_findings import Known, Merged, merge
from lily.review import Finding, Kind, Severity
from lily.storage import schema
from lily.storage.audit import Actor, Change, record
from lily.storage.database import writing
from lily.storage.rows import dump
from lily.storage.store import Store

REVIEWS_KEPT = 1000
CLOSED_KEPT = timedelta(days=90)
_AT_ONCE = 500


class LastReview(msgspec.Struct, frozen=True, kw_only=True):
    """A look at all jobs that was stored. `unseen` counts jobs whose windows it did not compare."""

    sequence: int
    at: str
    by: str
    run_id: str | None
    jobs: int
    windows: int
    unseen: int
    opened: int
    reopened: int
    closed: int


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What a look brought. `after` is the newest review that was stored when it began (0: none); `unseen` holds ids of findings of
    which it says nothing."""

    at: str
    by: str
    run_id: str | None
    after: int
    jobs: int
    windows: int
    unseen_jobs: int
    found: Sequence[Finding]
    unseen: Collection[str]


def last_of(connection: Connection) -> LastReview | None:
    """The newest review."""
    row = connection.execute(select(schema.review).order_by(schema.review.c.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else LastReview(**row._mapping)


def keep(store: Store, looked: Looked) -> Merged | None:
    """Store what a look found; gives what that changed. None, and nothing is stored, when another review was stored since it began:
    that one's findings stand, and this one's may be older."""
    with writing(store.engine) as connection:
        last = last_of(connection)
        if (last.sequence if last is not None else 0) != looked.after:
            return None
        f = schema.finding
        rows = connection.execute(select(f).where(f.c.closed_at.is_(None)))
        known = {each.finding.id: each for each in map(known_from, rows)}
        merged = merge(known, looked.found, looked.unseen, looked.at)
        put = store.upserts(f)
        changing = [column.name for column in f.c if not column.primary_key]
        put = put.on_conflict_do_update(index_elements=["job_id", "kind"], set_={name: put.excluded[name] for name in changing})
        for some in batched(merged.rows, _AT_ONCE):
            connection.execute(put, [_row(each) for each in some])
        review = {name: getattr(looked, name) for name in ("at", "by", "run_id", "jobs", "windows")}
        counts = {"opened": len(merged.opened), "reopened": len(merged.reopened), "closed": len(merged.closed)}
        connection.execute(schema.review.insert(), {**review, **counts, "unseen": looked.unseen_jobs})
        _forget(connection, parse_stamp(looked.at))
        return merged


def _forget(connection: Connection, now: datetime) -> None:
    f, r = schema.finding.c, schema.review.c
    connection.execute(delete(schema.finding).where(f.closed_at < stamp(now - CLOSED_KEPT)))
    oldest = connection.execute(select(r.sequence).order_by(r.sequence.desc()).offset(REVIEWS_KEPT).limit(1)).scalar()
    if oldest is not None:
        connection.execute(delete(schema.review).where(r.sequence <= oldest))


def acknowledge(store: Store, actor: Actor, found: Sequence[tuple[Kind, str]], *, reason: str, at: str, until: str | None) -> list[Known]:
    """Have these findings stay quiet until they change, or until `until`; all or none. Gives them as they are then; a finding that
    is not there is left out, and nothing is changed then."""
    acked = {"acked_at": at, "acked_by": actor.name, "ack_reason": reason, "ack_until": until}
    return _put_ack(store, actor, "review.ack", found, acked, reason, at)


def take_back(store: Store, actor: Actor, found: Sequence[tuple[Kind, str]], *, reason: str, at: str) -> list[Known]:
    """Have these findings be open again that somebody has acknowledged; all or none. One that nobody has is left out as well."""
    open_ = {"acked_at": None, "acked_by": "", "ack_reason": "", "ack_until": None}
    return _put_ack(store, actor, "review.unack", found, open_, reason, at, only_acked=True)


def _put_ack(
    store: Store,
    actor: Actor,
    action: str,
    found: Sequence[tuple[Kind, str]],
    values: dict[str, Any],
    reason: str,
    at: str,
    *,
    only_acked: bool = False,
) -> list[Known]:
    f = schema.finding
    with writing(store.engine) as connection:
        rows = []
        for kind, job_id in found:
            here = (f.c.job_id == job_id, f.c.kind == kind.value, f.c.closed_at.is_(None))
            row = connection.execute(select(f).where(*here)).one_or_none()
            if row is not None and (known_from(row).acknowledged(at) or not only_acked):
                rows.append(known_from(row))
        if len(rows) != len(found):
            return rows
        made = []
        for known in rows:
            new = msgspec.structs.replace(known, **values)
            mine = update(f).where(f.c.job_id == known.finding.job_id, f.c.kind == known.finding.kind.value)
            connection.execute(mine.values(**values))
            change = Change(
                action=action,
                object=known.finding.id,
                job_id=known.finding.job_id,
                reason=reason,
                before=_acked(known),
                after={**_acked(new), "fingerprint": known.finding.fingerprint},
            )
            record(connection, actor, change, at)
            made.append(new)
        return made


def _acked(known: Known) -> dict[str, Any]:
    return {"at": known.acked_at, "by": known.acked_by, "reason": known.ack_reason, "until": known.ack_until}


def known_from(row: Any) -> Known:
    """A finding from its row."""
    values: Mapping[str, Any] = row._mapping
    finding = Finding(
        kind=Kind(values["kind"]),
        severity=Severity(values["severity"]),
        evidence=msgspec.json.decode(values["evidence"]),
        **{name: values[name] for name in ("job_id", "message", "since", "look", "mend", "fingerprint")},
    )
    return Known(finding=finding, **{name: values[name] for name in _OF_KNOWN})


_OF_KNOWN = ("found_at", "closed_at", "acked_at", "acked_by", "ack_reason", "ack_until")


def _row(known: Known) -> dict[str, Any]:
    found = known.finding
    return {
        "kind": found.kind.value,
        "severity": found.severity.value,
        "evidence": dump(found.evidence),
        **{name: getattr(found, name) for name in ("job_id", "message", "since", "look", "mend", "fingerprint")},
        **{name: getattr(known, name) for name in _OF_KNOWN},
    }
