"""The worker's pause: a stored setting, so that it also works while no supervisor is up, and holds at the next start. Everything blocks."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, select

from lily.clock import stamp
from lily.runs import EventName
from lily.storage import schema
from lily.storage.audit import Actor, Change, record
from lily.storage.database import reading, writing
from lily.storage.rows import NONSENSE, dump
from lily.storage.store import Store
from lily.storage.system_events import tell

_M = schema.meta.c


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Since when no runs are taken, by whom, and why."""

    at: str
    by: str
    reason: str


def paused(store: Store) -> Pause | None:
    """The pause that holds; None while runs are taken."""
    with reading(store.engine) as connection:
        return paused_within(connection)


def paused_within(connection: Connection) -> Pause | None:
    """The same, inside a transaction."""
    found = connection.execute(select(_M.value).where(_M.key == schema.WORKER_PAUSE)).scalar()
    try:
        return None if found is None else msgspec.json.decode(found, type=Pause)
    except NONSENSE:  # edited by hand: that it is there holds, and `lily worker resume` takes it away
        return Pause(at="", by="", reason="what was written of this pause can't be read")


def pause(store: Store, actor: Actor, reason: str, at: datetime) -> tuple[Pause | None, Pause]:
    """Have no runs taken from now on; gives the pause before, and the one that holds now: a second pause replaces the first's reason."""
    ts = stamp(at)
    with writing(store.engine) as connection:
        before, after = paused_within(connection), Pause(at=ts, by=actor.name, reason=reason)
        put = store.upserts(schema.meta).values(key=schema.WORKER_PAUSE, value=dump(after))
        connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}))
        tell(connection, EventName.WORKER_PAUSED, ts, {"by": actor.name, "reason": reason})
        record(connection, actor, Change(action="worker.pause", reason=reason, before=before, after=after), ts)
        return before, after


def resume(store: Store, actor: Actor, reason: str, at: datetime) -> Pause | None:
    """Have runs taken again; gives the pause that this ends. Nothing is written when there is none."""
    ts = stamp(at)
    with writing(store.engine) as connection:
        before = paused_within(connection)
        if before is not None:
            connection.execute(delete(schema.meta).where(_M.key == schema.WORKER_PAUSE))
            tell(connection, EventName.WORKER_RESUMED, ts, {"by": actor.name, "reason": reason})
            record(connection, actor, Change(action="worker.resume", reason=reason, before=before), ts)
        return before
