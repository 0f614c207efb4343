"""What health asks of the tables: each a look at an index, however many rows there are. Everything blocks."""

import os
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, select, text

from lily.backlog import PRIORITIES
from lily.clock import boot_id, parse_stamp, process_start_ticks
from lily.health import QueueFacts
from lily.runs import Status
from lily.storage import schema
from lily.storage.alert_deliveries import undelivered
from lily.storage.database import PG_OWNER_LOCK, reading
from lily.storage.rows import NONSENSE, is_stamp
from lily.storage.store import Store

_APPROVALS_LOOKED_AT = 200  # those that were accepted first, class by class: their time is over first
# Whether any session holds the owner's lock.
_OWNED = text(
    "select 1 from pg_locks join pg_database d on d.oid = database and datname = current_database()"
    " where locktype = 'advisory' and classid = 0 and objid = :key and objsubid = 1 and granted"
)


def queue_facts(store: Store, now: datetime) -> QueueFacts:
    """Counts, dead letters, backpressure, and how old the oldest of those that wait are."""
    counts = store.counts()
    with reading(store.engine) as connection:
        standing = store.queue.standing(connection)
        oldest = _oldest_queued(connection)
        expires = _first_to_expire(connection)
        late = undelivered(connection)
        letters = connection.execute(select(func.count()).select_from(schema.dead_letter)).scalar_one()
    return QueueFacts(
        counts=counts,
        dead_letters=letters,
        max_size=standing.limits.max_size if standing.limits is not None else None,
        backpressure=standing.on,
        backpressure_since=standing.since or "",
        late_alerts=late,
        oldest_queued=None if oldest is None else max(0.0, round((now - parse_stamp(oldest)).total_seconds(), 3)),
        approval_left=None if expires is None else round((parse_stamp(expires) - now).total_seconds(), 3),
    )


def _oldest_queued(connection: Connection) -> str | None:
    """The index has the oldest of each priority at its front."""
    r = schema.run.c
    wanted = [
        select(func.min(r.enqueued_at)).where(r.status == Status.QUEUED.value, r.priority == priority).scalar_subquery()
        for priority in PRIORITIES.values()
    ]
    return min((found for found in connection.execute(select(*wanted)).one() if is_stamp(found)), default=None)


def _first_to_expire(connection: Connection) -> str | None:
    r = schema.run.c
    wanted = (
        select(r.approvals).where(r.status == Status.WAITING_APPROVAL.value).order_by(r.priority, r.enqueued_at).limit(_APPROVALS_LOOKED_AT)
    )
    last = [_last(row[0]) for row in connection.execute(wanted)]
    return min((str(each["expires_at"]) for each in last if is_stamp(each.get("expires_at"))), default=None)


def _last(approvals: str) -> dict[str, Any]:
    """What was asked for last; nothing where the row was edited into what is none, as `lily runs verify` says."""
    try:
        return dict(msgspec.json.decode(approvals, type=list[dict[str, Any]])[-1])
    except NONSENSE:
        return {}


def lives(store: Store, limit: int = 2, *, but: str = "") -> Sequence[tuple[str, str | None]]:
    """(start, end) of the newest supervisors, newest first, without that of the life `but`; an end of None: it is there, or it ended
    without a word."""
    life = schema.life.c
    wanted = select(life.started_at, life.ended_at).where(life.kind == "up", life.life != but)
    wanted = wanted.order_by(life.started_at.desc()).limit(limit)
    with reading(store.engine) as connection:
        return [(row[0], row[1]) for row in connection.execute(wanted)]


def other_supervisor(store: Store) -> tuple[int, str, str] | None:
    """(pid, since, machine) of another supervisor that lives, by the store's own record; of this machine, the machine is empty. The lock
    file may have been deleted, or it is that of another workspace with the same store."""
    life = schema.life.c
    here = and_(life.boot == boot_id(), life.host == socket.gethostname())
    up = and_(life.kind == "up", life.ended_at.is_(None))
    with reading(store.engine) as connection:
        for pid, ticks, since in connection.execute(
            select(life.pid, life.start_ticks, life.started_at).where(up, here, life.pid != os.getpid())
        ):
            if ticks is not None and process_start_ticks(pid) == ticks:
                return pid, since, ""
        return _on_another_machine(connection, up & ~here)


def _on_another_machine(connection: Connection, wanted: ColumnElement[bool]) -> tuple[int, str, str] | None:
    """Its processes can't be seen from here, and its session's lock can. Nobody begins while that is held: whoever began last holds it."""
    if connection.dialect.name != "postgresql" or not connection.execute(_OWNED, {"key": PG_OWNER_LOCK}).scalar():
        return None
    life = schema.life.c
    newest = select(func.max(life.started_at)).scalar_subquery()
    row = connection.execute(select(life.pid, life.started_at, life.host).where(wanted, life.started_at == newest)).first()
    return None if row is None else (row[0], row[1], row[2])


def scheduled_jobs(store: Store, turn: int, most: int) -> tuple[int, list[str]]:
    """(how many jobs have windows to come, the ids of at most `most` of them); another `turn` gives the next ones."""
    v = schema.trigger_version.c
    with reading(store.engine) as connection:
        count = connection.execute(select(func.count()).select_from(schema.trigger_version).where(v.until.is_(None))).scalar_one()
        first = (turn * most) % max(count, 1) if count > most else 0
        wanted = select(v.job_id).where(v.until.is_(None)).order_by(v.job_id).offset(first).limit(most)
        return count, list(connection.execute(wanted).scalars())
