"""Events that are no run's: in the same ordered stream as those of runs, under an empty run id."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select

from lily.runs import EventName
from lily.storage import schema
from lily.storage.rows import dump


def tell(connection: Connection, name: EventName, at: str, data: Mapping[str, Any]) -> None:
    """Append an event, inside the transaction that it speaks of (`writing`, so that no two get one number). `at` is a stamp."""
    tell_all(connection, name, at, [data])


def tell_all(connection: Connection, name: EventName, at: str, told: Sequence[Mapping[str, Any]]) -> None:
    """The same for several events of one name and moment."""
    e = schema.event.c
    last = connection.execute(select(func.max(e.n)).where(e.run_id == "")).scalar() or 0
    rows = [{"run_id": "", "n": last + n, "ts": at, "name": name.value, "data": dump(dict(data))} for n, data in enumerate(told, 1)]
    if rows:
        connection.execute(insert(schema.event), rows)
