"""Taking up what ended, in the order of its events, and raising alerts from it. Everything blocks.

How far events were taken up stands in the transaction that stores what they led to: a crash loses none and takes none up twice. Ends
that lead to nothing move that mark in memory only; taken up again they lead to nothing again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, and_, bindparam, exists, func, select

from lily.alerts.decide import Act, Decision, Ended, Kind, Streak, Terms, Told, decide
from lily.batched import batched
from lily.clock import stamp
from lily.runs import ErrorInfo, EventName
from lily.storage import schema
from lily.storage.audit import Actor, Change, record_all
from lily.storage.database import reading, writing
from lily.storage.rows import NONSENSE
from lily.storage.store import Store
from lily.text import storable

CURSOR = "alerts.cursor"  # the key of `meta` with the number of the last event that was taken up
PAGE = 2000  # events that are looked through at a time: those who end runs wait for what is stored of them
_AT_ONCE = 500  # jobs that one statement asks for
KEPT_APART = 20_000  # events without consequence after which the mark is stored all the same
ACTOR = Actor(name="alerts", kind="supervisor")
WAITING, DELIVERED, GIVEN_UP, DROPPED = "waiting", "delivered", "given_up", "dropped"

Redact = Callable[[str, str], str]  # (text, spec hash) → the text without what is secret


class Found(msgspec.Struct, frozen=True):
    """Ends of runs in their order, with the hash of the spec that each pinned; `upto` is how far events were looked through."""

    ends: list[tuple[Ended, str]]
    upto: int


class Route(msgspec.Struct, frozen=True):
    """A sink for a new alert: when it may be tried first, and why not at once."""

    sink: str
    next_at: str
    note: str = ""


def mark(store: Store) -> int:
    """The number of the last event that was taken up."""
    with reading(store.engine) as connection:
        return _mark(connection)


def _mark(connection: Connection) -> int:
    return int(connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == CURSOR)).scalar() or 0)


_NEWEST = select(func.max(schema.event.c.sequence))  # built once: this is asked every few seconds


def ends_after(store: Store, after: int) -> Found | None:
    """The next ends that may matter: failures, and successes of jobs that have failed. None when there are no newer events."""
    e = schema.event.c
    with reading(store.engine) as connection:
        newest = connection.execute(_NEWEST).scalar() or 0
        if newest <= after:
            return None
        upto = min(newest, after + PAGE)
        within = and_(e.sequence > after, e.sequence <= upto)
        failing = set(connection.execute(select(schema.alert_state.c.job_id)).scalars())
        rows = list(connection.execute(_ended(within, EventName.JOB_FAILED)))
        failing |= {row.job_id for row in rows}
        if failing:  # told apart here: a database might begin with all that these jobs ever ran
            rows += [row for row in connection.execute(_ended(within, EventName.JOB_COMPLETED)) if row.job_id in failing]
            rows.sort(key=lambda row: int(row.sequence))
    return Found([(_end(row), row.spec_hash) for row in rows], upto)


def _ended(within: Any, name: EventName) -> Select[Any]:
    e, r = schema.event, schema.run
    wanted = select(e.c.sequence, e.c.ts, e.c.name, e.c.data, e.c.run_id, r.c.job_id, r.c.trace_id, r.c.spec_hash)
    return wanted.select_from(e.join(r, r.c.run_id == e.c.run_id)).where(within, e.c.name == name.value).order_by(e.c.sequence)


def _end(row: Any) -> Ended:
    error = None
    if row.name == EventName.JOB_FAILED:
        error = _failure(row.data)
    return Ended(job_id=row.job_id, run_id=row.run_id, trace_id=row.trace_id, at=row.ts, error=error)


def _failure(data: str) -> ErrorInfo:
    try:
        given = msgspec.json.decode(data, type=dict[str, Any])
        names = ("code", "message", "blueprint_code")
        return msgspec.convert({"code": "", "message": "", **{name: given.get(name) for name in names if name in given}}, ErrorInfo)
    except NONSENSE:  # edited by hand: that it failed is known all the same
        return ErrorInfo(code="", message="")


def take_up(
    store: Store, found: Found, after: int, *, terms: Terms, routes: Callable[[], Sequence[Route]], redact: Redact, now: datetime
) -> list[tuple[int, Decision]] | None:
    """Decide on these ends, and store all that follows, in one transaction. Gives the alerts raised or refreshed.

    `after` is the mark that the caller began from; None when somebody else has moved the stored one beyond it meanwhile, and nothing was
    done then. `routes` says where a new alert goes.
    """
    redacted = [_redacted(ended, spec_hash, redact) for ended, spec_hash in found.ends]
    with writing(store.engine) as connection:
        if _mark(connection) > after:
            return None
        work = _Work(store, connection, {ended.job_id for ended, _ in redacted}, stamp(now))
        for ended, error in redacted:
            work.take(ended, error, terms, routes, now)
        work.store()
        put_mark(store, connection, found.upto)
        return work.alerts


def _redacted(ended: Ended, spec_hash: str, redact: Redact) -> tuple[Ended, str]:
    """The end as it is, for its fingerprint is that of dead letters too, and the message as it may be shown."""
    return ended, storable(redact(ended.error.message, spec_hash)) if ended.error is not None else ""


def put_mark(store: Store, connection: Connection, upto: int) -> None:
    """Have the mark stand at `upto`, in the transaction that stores what events up to there led to."""
    put = store.upserts(schema.meta).values(key=CURSOR, value=str(upto))
    connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}))


def newest_event(connection: Connection) -> int:
    """The number of the newest event, inside a transaction."""
    return int(connection.execute(_NEWEST).scalar() or 0)


def pass_over(store: Store, connection: Connection, before: int) -> None:
    """Take nothing up of the events that this transaction has added after the number `before`: they tell of what is long past."""
    if _mark(connection) >= before:
        put_mark(store, connection, newest_event(connection))


def keep_mark(store: Store, upto: int) -> None:
    """The same in a transaction of its own; one that stands further is left there."""
    with writing(store.engine) as connection:
        if _mark(connection) < upto:
            put_mark(store, connection, upto)


def _newest_of_error() -> Select[Any]:
    """The newest alert of a job and an error: its number, since when somebody has it, whether it waits, whether the job recovered since."""
    a, d, later = schema.alert.c, schema.alert_delivery.c, schema.alert.alias().c
    waiting = exists().where(d.alert_id == a.alert_id, d.state == WAITING)
    over = exists().where(later.job_id == a.job_id, later.alert_id > a.alert_id, later.kind == Kind.RECOVERED.value)
    mine = (a.job_id == bindparam("job_id"), a.fingerprint == bindparam("fingerprint"), a.kind == Kind.FAILING.value)
    return select(a.alert_id, a.sent_at, waiting, over).where(*mine).order_by(a.alert_id.desc()).limit(1)


_TOLD = _newest_of_error()
_RAISE = schema.alert.insert()
_DESCRIBED = ("run_id", "trace_id", "failures", "since", "code", "message")
_REFRESH = schema.alert.update().where(schema.alert.c.alert_id == bindparam("b_alert_id")).values({n: bindparam(n) for n in _DESCRIBED})


class _Work:
    """The streaks of some jobs while ends are decided on, and what is to be stored of them."""

    def __init__(self, store: Store, connection: Connection, job_ids: Collection[str], at: str) -> None:
        self._store, self._connection, self._at = store, connection, at
        self._before = streaks_within(connection, job_ids)
        self._streaks = dict(self._before)
        self.alerts: list[tuple[int, Decision]] = []
        self._changes: list[Change] = []
        self._known: dict[str, dict[str, Told | None]] = {}  # what was told, by job and fingerprint; until something is raised for the job
        self._refreshed: dict[int, Streak] = {}

    def take(self, ended: Ended, message: str, terms: Terms, routes: Callable[[], Sequence[Route]], now: datetime) -> None:
        before = self._streaks.get(ended.job_id)
        decision = decide(before, ended, lambda print_: self._told(ended.job_id, print_), terms, now)
        streak = decision.streak
        if streak is not None and streak is not before:
            streak = msgspec.structs.replace(streak, message=message)
        if decision.act is Act.RAISE and streak is not None:
            number = self._raise(Kind.FAILING, streak, streak.run_id, streak.trace_id, decision.why, routes())
            streak = msgspec.structs.replace(streak, alert_id=number)
            self.alerts.append((number, decision))
        elif decision.act is Act.REFRESH and streak is not None:
            self._refreshed[decision.alert_id] = streak
            streak = msgspec.structs.replace(streak, alert_id=decision.alert_id)
            self.alerts.append((decision.alert_id, decision))
        elif decision.act is Act.RECOVER and before is not None:
            number = self._raise(Kind.RECOVERED, before, ended.run_id, ended.trace_id, decision.why, routes())
            self.alerts.append((number, decision))
        if streak is None:
            self._streaks.pop(ended.job_id, None)
        else:
            self._streaks[ended.job_id] = streak

    def _told(self, job_id: str, fingerprint: str) -> Told | None:
        known = self._known.setdefault(job_id, {})
        if fingerprint not in known:
            row = self._connection.execute(_TOLD, {"job_id": job_id, "fingerprint": fingerprint}).one_or_none()
            known[fingerprint] = Told(alert_id=row[0], sent_at=row[1], waiting=bool(row[2]), over=bool(row[3])) if row is not None else None
        return known[fingerprint]

    def _raise(self, kind: Kind, streak: Streak, run_id: str, trace_id: str, why: str, routes: Sequence[Route]) -> int:
        row: dict[str, Any] = {**_described(streak), "run_id": run_id, "trace_id": trace_id}
        row |= {"kind": kind.value, "job_id": streak.job_id, "fingerprint": streak.fingerprint, "why": why, "raised_at": self._at}
        row["sent_at"] = None if routes else self._at  # where nobody is to be told, nobody waits
        self._known.pop(streak.job_id, None)
        made: Any = self._connection.execute(_RAISE, row).inserted_primary_key
        number = int(made[0])
        deliveries = [
            {"alert_id": number, "sink": each.sink, "job_id": streak.job_id, "state": WAITING, "next_at": each.next_at, "note": each.note}
            for each in routes
        ]
        if deliveries:
            self._connection.execute(schema.alert_delivery.insert(), deliveries)
        after = {"kind": kind.value, "failures": streak.failures, "code": streak.code, "run_id": run_id}
        action = "alert.recover" if kind is Kind.RECOVERED else "alert.raise"
        self._changes.append(Change(action=action, object=f"A{number}", job_id=streak.job_id, reason=why, trace_id=trace_id, after=after))
        return number

    def store(self) -> None:
        if self._refreshed:
            rows = [{"b_alert_id": number, **_described(streak)} for number, streak in self._refreshed.items()]
            self._connection.execute(_REFRESH, rows)
        gone = [job_id for job_id in self._before if job_id not in self._streaks]
        for some in batched(gone, _AT_ONCE):
            self._connection.execute(schema.alert_state.delete().where(schema.alert_state.c.job_id.in_(some)))
        changed = [streak for job_id, streak in self._streaks.items() if streak is not self._before.get(job_id)]
        if changed:
            put = self._store.upserts(schema.alert_state)
            values = {c.name: put.excluded[c.name] for c in schema.alert_state.c if c.name != "job_id"}
            put = put.on_conflict_do_update(index_elements=["job_id"], set_=values)
            self._connection.execute(put, [msgspec.to_builtins(streak) for streak in changed])
        record_all(self._connection, ACTOR, self._changes, self._at)


def _described(streak: Streak) -> dict[str, Any]:
    """What an alert says of a streak, and says anew while nobody has it."""
    return {name: getattr(streak, name) for name in _DESCRIBED}


def streaks_within(connection: Connection, job_ids: Iterable[str]) -> dict[str, Streak]:
    """Those of these jobs that failed last, by id."""
    s, found = schema.alert_state, dict[str, Streak]()
    for some in batched(sorted(job_ids), _AT_ONCE):
        for row in connection.execute(select(s).where(s.c.job_id.in_(some))):
            found[row.job_id] = streak_from(row._mapping)
    return found


def streak_from(row: Mapping[Any, Any]) -> Streak:
    """From a row of `alert_state`."""
    return Streak(**{str(name): value for name, value in row.items()})
