"""The queue's numbers, kept in the very transactions that change them: runs by status, limits in force, and whether backpressure holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, func, literal, select, union_all

from lily.backlog import CLASSES, Gate, Place, in_order, marks, pressed
from lily.clock import parse_stamp
from lily.errors import Code, LilyError
from lily.runs import EventName, Move, Status
from lily.settings import Queue
from lily.storage import schema
from lily.storage.rows import NONSENSE, dump
from lily.storage.statements import Asked, ForRows
from lily.storage.system_events import tell

# Keys of `meta`: {"on", "since"}, and {"max_size", "max_concurrent", "at", "by"} of what holds until the supervisor starts again.
BACKPRESSURE, HELD = "queue_backpressure", "queue_set"
LIMITS = ("max_concurrent", "max_size")  # what `lily queue set` sets


@dataclass(frozen=True, slots=True)
class Standing:
    """How the queue stands: the limits in force (None: there are none), those held in place of the file's, how many are queued."""

    limits: Queue | None
    held: dict[str, Any]
    queued: int
    on: bool
    since: str | None  # since when backpressure is on or off


def in_force(limits: Queue | None, held: Mapping[str, Any]) -> Queue | None:
    """The file's limits with those of `lily queue set` over them."""
    given = {name: held[name] for name in LIMITS if type(held.get(name)) is int}
    return msgspec.structs.replace(limits, **given) if limits is not None and given else limits


class QueueNumbers:
    """For one store. `limits` are those of the file; None for a store that takes whatever comes."""

    def __init__(self, upserts: Any, limits: Queue | None) -> None:
        self.limits = limits
        meta, tally = schema.meta, schema.tally
        add = upserts(tally)
        more = add.on_conflict_do_update(index_elements=["status"], set_={"runs": tally.c.runs + add.excluded.runs})
        self._add = ForRows(more.inline(), ["status", "runs"])
        put = upserts(meta)
        self._put = ForRows(
            put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}).inline(), ["key", "value"]
        )
        queued = select(tally.c.runs).where(tally.c.status == Status.QUEUED.value).scalar_subquery()
        kept = [select(meta.c.value).where(meta.c.key == key).scalar_subquery() for key in (BACKPRESSURE, HELD)]
        self._standing = Asked(select(queued, *kept))

    @property
    def ages(self) -> bool:
        """Whether waiting lifts a run into a higher class."""
        return self.limits is not None and self.limits.ageing_seconds is not None

    def in_order(self, connection: Connection, queued: Any, limit: int, now: datetime, *, desc: bool = False) -> Sequence[Any]:
        """The first `limit` rows of `queued` (all columns of `run`, by class and then as they came in), with ageing where it is on.

        `desc`: `queued` begins with the last.
        """
        ageing = self.limits.ageing_seconds if self.limits is not None else None
        if ageing is None:
            return connection.execute(queued, {"limit": limit}).all()
        found = [connection.execute(queued.where(schema.run.c.priority == n), {"limit": limit}).all() for n in range(len(CLASSES))]
        placed = [[(_place(row, now), row) for row in rows] for rows in found]
        return in_order(placed, ageing, limit, desc=desc)

    # -- inside the transactions of others --------------------------------------------------------

    def standing(self, connection: Connection) -> Standing:
        """How the queue stands, as this transaction sees it."""
        ((queued, pressure, held),) = self._standing(connection)
        told, over = _kept(pressure), _kept(held)
        return Standing(in_force(self.limits, over), over, queued or 0, bool(told.get("on")), told.get("since"))

    def gate(self, connection: Connection) -> Gate:
        """What lets runs in, one after the other, within a transaction that stores them."""
        now = self.standing(connection)
        return Gate(now.limits, now.queued, now.on)

    def count(self, connection: Connection, changes: Mapping[str, int], at: str, gate: Gate | None = None) -> None:
        """So many runs more, or fewer, by status. Switches backpressure where that crosses one of its marks; a gate that has let all of
        them in, within this transaction, knows whether it does."""
        rows = [{"status": status, "runs": by} for status, by in changes.items() if by]
        self._add(connection, rows)
        if changes.get(Status.QUEUED.value) and (gate is None or gate.on != gate.was_on):
            self.switch(connection, at, gate)

    def count_moves(self, connection: Connection, moves: Iterable[Move], at: str) -> None:
        """The same for moves."""
        changes: dict[str, int] = {}
        for move in moves:
            if move.expected is not move.run.status:
                changes[move.expected.value] = changes.get(move.expected.value, 0) - 1
                changes[move.run.status.value] = changes.get(move.run.status.value, 0) + 1
        if changes:
            self.count(connection, changes, at)

    def switch(self, connection: Connection, at: str, gate: Gate | None = None) -> None:
        """Turn backpressure on or off if the queue, or the gate that has let the last ones in, stands so; the event tells when."""
        if self.limits is None:
            return
        now = self.standing(connection)
        assert now.limits is not None
        on = pressed(now.limits, now.queued, now.on) if gate is None else gate.on
        if on == now.on:
            return
        self.put(connection, BACKPRESSURE, {"on": on, "since": at})
        name = EventName.QUEUE_BACKPRESSURE_ON if on else EventName.QUEUE_BACKPRESSURE_OFF
        tell(connection, name, at, {"queued": now.queued, "max_size": now.limits.max_size})

    def put(self, connection: Connection, key: str, value: Any) -> None:
        """Keep a value under one of the keys above."""
        self._put(connection, [{"key": key, "value": dump(value)}])


def _kept(value: str | None) -> dict[str, Any]:
    """A value of `meta`; what somebody wrote there by hand and is none is as if it were not there, and the next change replaces it."""
    try:
        return msgspec.json.decode(value, type=dict[str, Any]) if value else {}
    except NONSENSE:
        return {}


def _place(row: Any, now: datetime) -> Place:
    try:
        waited = (now - parse_stamp(row.enqueued_at)).total_seconds()
    except NONSENSE:  # edited by hand, as whoever reads the whole row finds
        waited = 0.0
    return row.priority, waited, row.run_id


def refused(code: Code, gate: Gate, count: int, where: str) -> LilyError:
    """The refusal of `count` runs by a gate that has let some of them in before."""
    limits, depth = gate.limits, gate.before
    assert limits is not None
    upper, lower = marks(limits)
    queued = f"{depth} of {limits.max_size} {'is' if depth == 1 else 'are'} queued"
    if code is Code.QUEUE_FULL:
        message = f"{queued}, and more are not taken"
        hint = "wait, take some out with `lily queue cancel`, or raise the limit with `lily queue set --max-size N`; nothing was stored"
    else:
        message = f"{queued}: from {upper} on only critical runs are taken, until it is back at {lower}"
        hint = "wait until it is shorter, or take some out with `lily queue cancel`; nothing was stored"
    if count > 1:
        message = f"{count} runs at once are too many: {message}"
    return LilyError(code, message, where=where, hint=hint, queued=depth, max_size=limits.max_size, on_at=upper, off_at=lower)


def tally_differences(connection: Connection) -> dict[str, tuple[int, int]]:
    """Statuses for which the tally is wrong: (what it says, what is there). One statement, so that both are of one moment."""
    run, tally = schema.run, schema.tally
    both = union_all(
        select(tally.c.status, tally.c.runs.label("told"), literal(0).label("there")),
        select(run.c.status, literal(0), func.count()).group_by(run.c.status),
    ).subquery()
    wanted = select(both.c.status, func.sum(both.c.told), func.sum(both.c.there)).group_by(both.c.status)
    return {status: (int(told), int(there)) for status, told, there in connection.execute(wanted) if told != there}
