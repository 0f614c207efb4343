"""The box of dead letters, inside the transactions that fill and empty it. How many there are is kept, so that nobody need count them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, select

from lily.batched import batched
from lily.runs import EventName, Move, Status
from lily.storage import schema
from lily.storage.rows import dump
from lily.storage.statements import ForRows
from lily.storage.system_events import tell_all
from lily.text import storable

AT_ONCE = 500  # entries that one transaction takes out at most: others wait for it
COUNT = "dead_letters"  # the key of `meta` that holds how many there are


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that went by itself; `reason` is `retention` or `max_entries`."""

    run_id: str
    job_id: str
    reason: str


class LetterBox:
    """For one store; `insert` is its dialect's INSERT. At most `most` entries are kept: the oldest go."""

    def __init__(self, insert: Callable[..., Any], most: int) -> None:
        self.most = most
        box, meta = schema.dead_letter, schema.meta
        self._add = ForRows(box.insert().inline(), [c.name for c in box.c])
        put = insert(meta).values(key=COUNT, value=bindparam("value"))
        self._put_count = put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value})
        self._count = select(meta.c.value).where(meta.c.key == COUNT)
        self._oldest = select(box.c.run_id, box.c.job_id).order_by(box.c.added_at, box.c.run_id).limit(bindparam("limit"))

    def post(self, connection: Connection, moves: Sequence[Move]) -> None:
        """Put in the runs that these moves end for good. What no longer fits goes out, the oldest first, with an event each."""
        rows = [
            _row(move, event.data)
            for move in moves
            if move.run.status is Status.FAILED
            for event in move.events
            if event.event is EventName.JOB_DEAD_LETTERED
        ]
        if rows:
            self._add(connection, rows)
            if self._changed(connection, len(rows)) > self.most:
                self.fit(connection, rows[-1]["added_at"])

    def count(self, connection: Connection) -> int:
        """How many there are."""
        kept = self._kept(connection)
        return _counted(connection) if kept is None else kept

    def recount(self, connection: Connection) -> int:
        """The same, counted and kept: whoever changed the table by hand is forgiven."""
        found = _counted(connection)
        connection.execute(self._put_count, {"value": str(found)})
        return found

    def drop(self, connection: Connection, run_ids: Sequence[str]) -> int:
        """Take these out, and say how many there were."""
        box, gone = schema.dead_letter, 0
        for some in batched(run_ids, AT_ONCE):
            gone += connection.execute(box.delete().where(box.c.run_id.in_(some))).rowcount
        if gone:
            self._changed(connection, -gone)
        return gone

    def fit(self, connection: Connection, at: str) -> list[Pruned]:
        """Take out the oldest that are more than `most`, at most AT_ONCE. `at` is a stamp."""
        over = min(self.count(connection) - self.most, AT_ONCE)
        if over <= 0:
            return []
        rows = connection.execute(self._oldest, {"limit": over}).all()
        return self._discard(connection, [Pruned(run_id=row[0], job_id=row[1], reason="max_entries") for row in rows], at)

    def expire(self, connection: Connection, before: str, at: str) -> list[Pruned]:
        """Take out the oldest that were added before a stamp, at most AT_ONCE."""
        rows = connection.execute(self._oldest.where(schema.dead_letter.c.added_at < before), {"limit": AT_ONCE}).all()
        return self._discard(connection, [Pruned(run_id=row[0], job_id=row[1], reason="retention") for row in rows], at)

    def _discard(self, connection: Connection, going: list[Pruned], at: str) -> list[Pruned]:
        self.drop(connection, [each.run_id for each in going])
        told = [{"run": each.run_id, "job": each.job_id, "reason": each.reason} for each in going]
        tell_all(connection, EventName.DEAD_LETTER_PRUNED, at, told)
        return going

    def _changed(self, connection: Connection, by: int) -> int:
        kept = self._kept(connection)
        if kept is None:
            return self.recount(connection)
        now = max(0, kept + by)
        connection.execute(self._put_count, {"value": str(now)})
        return now

    def _kept(self, connection: Connection) -> int | None:
        try:
            return int(connection.execute(self._count).scalar() or 0)
        except ValueError:  # edited by hand
            return None


def _counted(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(schema.dead_letter)).scalar() or 0


def _row(move: Move, marks: dict[str, Any]) -> dict[str, Any]:
    run = move.run
    assert run.error is not None
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "added_at": run.ended_at,
        "code": run.error.code,
        "reason": storable(run.error.message),
        "attempts": dump(run.attempts),
        "fingerprint": marks["fingerprint"],
        "cause": marks["cause"],
    }
