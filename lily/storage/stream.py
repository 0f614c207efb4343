"""The one ordered stream of events over all runs and what is no run's. Everything blocks.

Sequence numbers are given inside the writing transactions, which wait for one another on both databases: what has a higher number
became visible later, so a reader that remembers the last number it saw loses nothing and sees nothing twice.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Select, func, select

from lily.storage import schema
from lily.storage.database import reading
from lily.storage.store import Store

PAGE = 1000


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the stream. `sequence` is durable and grows, with gaps; `job_id` and `run_id` are None where it is no run's;
    `n` counts the run's own events; `data` holds the event's own fields."""

    sequence: int
    ts: str
    event: str
    job_id: str | None
    run_id: str | None
    n: int
    data: dict[str, Any]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: of these types and of this job; empty for all."""

    types: Collection[str] = ()
    job_id: str = ""


def newest(store: Store) -> int:
    """The last number given; 0 when there was none."""
    with reading(store.engine) as connection:
        return connection.execute(select(func.max(schema.event.c.sequence))).scalar() or 0


def after(store: Store, sequence: int, wanted: Wanted, limit: int = PAGE, *, until: int = 2**63 - 1) -> list[StreamEvent]:
    """The first events after `sequence` and up to `until`, in order."""
    e = schema.event.c
    return _read(store, _rows(wanted).where(e.sequence > sequence, e.sequence <= until).order_by(e.sequence).limit(limit))


def last(store: Store, count: int, wanted: Wanted, until: int) -> list[StreamEvent]:
    """The last `count` events up to the number `until`, in order."""
    e = schema.event.c
    return _read(store, _rows(wanted).where(e.sequence <= until).order_by(e.sequence.desc()).limit(count))[::-1]


def _rows(wanted: Wanted) -> Select[Any]:
    e, r = schema.event, schema.run
    found = select(e.c.sequence, e.c.ts, e.c.name, r.c.job_id, e.c.run_id, e.c.n, e.c.data).select_from(
        e.outerjoin(r, r.c.run_id == e.c.run_id)
    )
    if wanted.types:
        found = found.where(e.c.name.in_(list(wanted.types)))
    if wanted.job_id:
        found = found.where(r.c.job_id == wanted.job_id)
    return found


def _read(store: Store, wanted: Select[Any]) -> list[StreamEvent]:
    with reading(store.engine) as connection:
        return [
            StreamEvent(sequence=row[0], ts=row[1], event=row[2], job_id=row[3], run_id=row[4] or None, n=row[5], data=_data(row[6]))
            for row in connection.execute(wanted)
        ]


def _data(text: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text)
    return found
