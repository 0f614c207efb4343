"""What people ask of alerts. Everything blocks."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, case, exists, func, select

from lily.alerts.decide import Streak
from lily.storage import schema
from lily.storage.alert_deliveries import AlertRow, alert_from
from lily.storage.alerts import GIVEN_UP, WAITING, streak_from
from lily.storage.database import reading
from lily.storage.store import Store


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an alert at one sink; `log` has the last tries, oldest first, each with `at`, `outcome` and `note`."""

    alert_id: int
    sink: str
    state: str
    tries: int
    next_at: str
    last_at: str | None
    note: str
    log: list[dict[str, str]]


class Shown(msgspec.Struct, frozen=True):
    """An alert with its deliveries, by the sinks' names."""

    alert: AlertRow
    deliveries: list[Delivery]


def alerts(store: Store, *, job_id: str | None = None, undelivered: bool = False, limit: int = 20) -> list[Shown]:
    """Newest first."""
    a, d = schema.alert, schema.alert_delivery.c
    wanted = select(a).order_by(a.c.alert_id.desc()).limit(limit)
    if job_id is not None:
        wanted = wanted.where(a.c.job_id == job_id)
    if undelivered:
        wanted = wanted.where(exists().where(d.alert_id == a.c.alert_id, d.state.in_([WAITING, GIVEN_UP])))
    return _shown(store, wanted)


def alert(store: Store, number: int) -> Shown | None:
    """One alert, or None."""
    found = _shown(store, select(schema.alert).where(schema.alert.c.alert_id == number))
    return found[0] if found else None


def _shown(store: Store, wanted: Select[Any]) -> list[Shown]:
    d = schema.alert_delivery
    with reading(store.engine) as connection:
        rows = [alert_from(row) for row in connection.execute(wanted)]
        of: dict[int, list[Delivery]] = {}
        ids = [row.alert_id for row in rows]
        for row in connection.execute(select(d).where(d.c.alert_id.in_(ids)).order_by(d.c.alert_id, d.c.sink)) if ids else ():
            of.setdefault(row.alert_id, []).append(_delivery(row))
    return [Shown(row, of.get(row.alert_id, [])) for row in rows]


def _delivery(row: Any) -> Delivery:
    given = {str(name): value for name, value in row._mapping.items() if name != "job_id"}
    return Delivery(**{**given, "log": msgspec.json.decode(given["log"])})


def streaks(store: Store, job_id: str | None = None, *, limit: int = 1000) -> Sequence[Streak]:
    """Jobs whose last runs failed, those with the most failures in a row first."""
    s = schema.alert_state
    wanted = select(s).order_by(s.c.failures.desc(), s.c.job_id).limit(limit)
    if job_id is not None:
        wanted = wanted.where(s.c.job_id == job_id)
    with reading(store.engine) as connection:
        return [streak_from(row._mapping) for row in connection.execute(wanted)]


def waiting_by_sink(store: Store) -> dict[str, tuple[int, int]]:
    """By the sink's name: how many alerts it has not got yet, and how many of these were tried."""
    d = schema.alert_delivery.c
    tried = func.sum(case((d.tries > 0, 1), else_=0))
    with reading(store.engine) as connection:
        rows = connection.execute(select(d.sink, func.count(), tried).where(d.state == WAITING).group_by(d.sink))
        return {row[0]: (int(row[1]), int(row[2])) for row in rows}
