"""Bringing alerts to sinks: what is due, and what became of each try. Everything blocks; each change is one transaction with its audit."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, exists, func, select

from lily.alerts.decide import Kind
from lily.clock import stamp
from lily.storage import schema
from lily.storage.alerts import ACTOR, DELIVERED, DROPPED, GIVEN_UP, WAITING
from lily.storage.audit import Change, record
from lily.storage.database import reading, writing
from lily.storage.rows import dump
from lily.storage.store import Store

AT_ONCE = 50  # deliveries of one sink that are taken at a time
TRIES_KEPT = 20
KEPT = timedelta(days=90)  # alerts of which nothing waits any more
PRUNED_AT_ONCE = 500
LATE = (schema.alert_delivery.c.state == WAITING, schema.alert_delivery.c.tries > 0)  # tried, and not delivered yet


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as it is stored. `sent_at` is None while nobody has it."""

    alert_id: int
    kind: Kind
    job_id: str
    run_id: str
    trace_id: str
    fingerprint: str
    failures: int
    since: str
    code: str
    message: str
    why: str
    raised_at: str
    sent_at: str | None


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that one sink is to get now, after `tries` that failed."""

    alert: AlertRow
    sink: str
    tries: int


class Waits(msgspec.Struct, frozen=True):
    """What is due, oldest first, and when something else is due next (None: nothing waits)."""

    due: list[Due]
    next_at: str | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery: its state, why, and when it may be tried again. `tried`: it was, and not only put off.
    `sent`: somebody has the alert now."""

    state: str
    at: str
    note: str = ""
    next_at: str = ""
    tried: bool = True
    sent: bool = False


_ALERT = tuple(str(column.name) for column in schema.alert.c)


def waits(store: Store, now: datetime, busy: Collection[str] = ()) -> Waits:
    """What may be brought to sinks that are not `busy`. Alerts of one job reach a sink in their order."""
    a, d, earlier = schema.alert, schema.alert_delivery, schema.alert_delivery.alias()
    first = ~exists().where(
        earlier.c.job_id == d.c.job_id, earlier.c.sink == d.c.sink, earlier.c.alert_id < d.c.alert_id, earlier.c.state == WAITING
    )
    mine = and_(d.c.state == WAITING, d.c.sink.not_in(list(busy))) if busy else d.c.state == WAITING
    with reading(store.engine) as connection:
        soonest = connection.execute(select(func.min(d.c.next_at)).where(d.c.state == WAITING)).scalar()
        if soonest is None or soonest > stamp(now):
            return Waits([], soonest)
        sinks = list(connection.execute(select(d.c.sink).where(mine, d.c.next_at <= stamp(now)).distinct().order_by(d.c.sink)).scalars())
        found: list[Due] = []
        for sink in sinks:
            wanted = select(a, d.c.sink, d.c.tries).select_from(d.join(a, a.c.alert_id == d.c.alert_id))
            wanted = wanted.where(mine, d.c.sink == sink, d.c.next_at <= stamp(now), first).order_by(d.c.next_at, d.c.alert_id)
            found += [_due(row) for row in connection.execute(wanted.limit(AT_ONCE))]
        later = connection.execute(select(func.min(d.c.next_at)).where(mine, d.c.next_at > stamp(now))).scalar()
        return Waits(found, later)


def _due(row: Any) -> Due:
    return Due(alert=alert_from(row), sink=row.sink, tries=row.tries)


def alert_from(row: Any) -> AlertRow:
    """From a row that begins with the columns of `alert`."""
    given = dict(zip(_ALERT, row, strict=False))
    return AlertRow(**{**given, "kind": Kind(given["kind"])})


def note(store: Store, due: Due, result: Result) -> None:
    """Store what became of a try. Twice is once: only what still waits is changed."""
    d, number = schema.alert_delivery, due.alert.alert_id
    mine = and_(d.c.alert_id == number, d.c.sink == due.sink, d.c.state == WAITING, d.c.tries == due.tries)
    with writing(store.engine) as connection:
        row = connection.execute(select(d.c.log).where(mine)).one_or_none()
        if row is None:
            return
        values: dict[str, Any] = {"state": result.state, "note": result.note}
        if result.next_at:
            values["next_at"] = result.next_at
        if result.tried:
            tries = [*msgspec.json.decode(row.log), {"at": result.at, "outcome": result.state, "note": result.note}]
            values |= {"tries": due.tries + 1, "last_at": result.at, "log": dump(tries[-TRIES_KEPT:])}
        connection.execute(d.update().where(mine).values(values))
        if result.sent:
            a = schema.alert.c
            connection.execute(schema.alert.update().where(a.alert_id == number, a.sent_at.is_(None)).values(sent_at=result.at))
        _audit(connection, due, result)


_ACTIONS = {DELIVERED: "alert.send", GIVEN_UP: "alert.give_up", DROPPED: "alert.drop"}


def _audit(connection: Connection, due: Due, result: Result) -> None:
    action, alert = _ACTIONS.get(result.state), due.alert
    if action is not None:
        after = {"sink": due.sink, "state": result.state, "tries": due.tries + result.tried}
        change = Change(
            action=action, object=f"A{alert.alert_id}", job_id=alert.job_id, reason=result.note, trace_id=alert.trace_id, after=after
        )
        record(connection, ACTOR, change, result.at)


def hasten(store: Store, sink: str, now: datetime) -> None:
    """Have a sink be tried with all that it has not got; what has to wait all the same is put off again."""
    d = schema.alert_delivery
    behind = and_(d.c.sink == sink, d.c.state == WAITING, d.c.next_at > stamp(now))
    with reading(store.engine) as connection:
        if connection.execute(select(d.c.alert_id).where(behind).limit(1)).scalar() is None:
            return
    with writing(store.engine) as connection:
        connection.execute(d.update().where(behind).values(next_at=stamp(now)))


def prune(store: Store, now: datetime) -> int:
    """Forget old alerts of which nothing waits, a few hundred at most, and failures of jobs that never ran again; says how many alerts."""
    a, d = schema.alert.c, schema.alert_delivery.c
    waiting = exists().where(d.alert_id == a.alert_id, d.state == WAITING)
    with reading(store.engine) as connection:
        wanted = select(a.alert_id).where(a.raised_at < stamp(now - KEPT), ~waiting).order_by(a.raised_at).limit(PRUNED_AT_ONCE)
        ids = list(connection.execute(wanted).scalars())
        s = schema.alert_state.c
        ended = list(connection.execute(select(s.job_id).where(s.last_at < stamp(now - KEPT)).limit(PRUNED_AT_ONCE)).scalars())
    if ids or ended:
        with writing(store.engine) as connection:
            connection.execute(schema.alert_state.delete().where(s.job_id.in_(ended)))
            connection.execute(schema.alert_delivery.delete().where(d.alert_id.in_(ids)))
            connection.execute(schema.alert.delete().where(a.alert_id.in_(ids)))
    return len(ids)


def undelivered(connection: Connection) -> int:
    """How many alerts were tried, failed, and wait for another try, at however many sinks; inside a transaction."""
    return connection.execute(select(func.count(schema.alert_delivery.c.alert_id.distinct())).where(*LATE)).scalar_one()
