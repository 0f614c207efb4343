"""The store: what is owed and what happened, in one body of queries for SQLite and PostgreSQL.

All calls block; async callers go through their `offload`. Every change of a run's state is a compare-and-set.
"""

import random
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, Table, and_, bindparam, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from lily.clock import Clock, parse_stamp, stamp
from lily.errors import Code, LilyError
from lily.runs import TERMINAL, Attempt, Event, EventName, Move, PinnedSpec, Run, Status, decode_spec, may_become
from lily.storage import schema
from lily.storage.database import open_engine, reading, upgrade, writing
from lily.storage.rows import PRIORITIES, attempt_from, attempt_row, dump, moved, run_from

_SUFFIX = "0123456789abcdefghijklmnopqrstuvwxyz"
_SPECS_REMEMBERED = 1000
_CANCELED_AT_ONCE = 100
_OPEN = [status.value for status in Status if status not in TERMINAL]


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be accepted. `spec` is the canonical JSON of the job spec that it pins."""

    job_id: str
    spec: bytes
    spec_hash: str
    trigger: dict[str, Any]
    priority: str = "normal"
    key: str | None = None
    lineage: dict[str, Any] = {}
    approvals: list[dict[str, Any]] = []
    events: list[Event] = []  # further lifecycle events of the acceptance, after job_queued


@dataclass(frozen=True, slots=True)
class Look:
    """What the runner asks for: runs to start, in order, cancels that were asked of running ones, and runs that were canceled while
    they waited, so that nobody has written their artifacts."""

    queued: list[Run]
    cancels: dict[str, dict[str, Any]] = field(default_factory=dict)
    canceled: list[str] = field(default_factory=list)


class Store:
    """One workspace's store."""

    def __init__(self, url: str, *, database_file: Path, clock: Clock, dice: random.Random | None = None) -> None:
        """Connects and brings the schema up to date. `dice` makes run ids repeatable in tests."""
        self.engine = open_engine(url, database_file=database_file)
        self._clock = clock
        self._dice = dice or secrets.SystemRandom()
        self._specs: dict[str, tuple[PinnedSpec, str]] = {}
        self._insert = postgresql.insert if self.engine.dialect.name == "postgresql" else sqlite.insert
        self._statements = _Statements(self._insert)
        upgrade(self.engine)

    def upserts(self, table: Table) -> Any:
        """An INSERT into `table` that knows ON CONFLICT, for this store's database."""
        return self._insert(table)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    # -- accepting --------------------------------------------------------------------------------

    def submit(self, new: Sequence[NewRun]) -> list[Run]:
        """Accept runs in one transaction. A run whose key belongs to a run that is not terminal is that run."""
        with writing(self.engine) as connection:
            held = self._holders(connection, {n.key for n in new if n.key})
            ids = self._ids(connection)
            accepted: list[Run] = []
            fresh: list[tuple[NewRun, Run]] = []
            for each in new:
                run = held.get(each.key) if each.key else None
                if run is None:
                    run = self._accept(each, next(ids))
                    fresh.append((each, run))
                    if each.key:
                        held[each.key] = run
                accepted.append(run)
            if fresh:
                self._insert_runs(connection, fresh)
            return accepted

    def _accept(self, new: NewRun, run_id: str) -> Run:
        ts = stamp(self._clock.now())
        return Run(
            run_id=run_id,
            job_id=new.job_id,
            status=Status.QUEUED,
            spec_hash=new.spec_hash,
            trigger=new.trigger,
            queued_at=ts,
            enqueued_at=ts,
            trace_id=f"{self._dice.getrandbits(128):032x}",
            key=new.key,
            lineage=new.lineage,
            approvals=new.approvals,
            events=1 + len(new.events),
        )

    def _insert_runs(self, connection: Connection, fresh: list[tuple[NewRun, Run]]) -> None:
        specs = {new.spec_hash: new.spec.decode() for new, _ in fresh}
        connection.execute(self._statements.add_spec, [{"spec_hash": h, "body": body} for h, body in specs.items()])
        connection.execute(
            self._statements.add_run,
            [
                {
                    "run_id": run.run_id,
                    "job_id": run.job_id,
                    "status": run.status,
                    "priority": PRIORITIES[new.priority],
                    "queued_at": run.queued_at,
                    "enqueued_at": run.enqueued_at,
                    "spec_hash": run.spec_hash,
                    "key": run.key,
                    "trigger": dump(run.trigger),
                    "lineage": dump(run.lineage),
                    "approvals": dump(run.approvals),
                    "trace_id": run.trace_id,
                    "events": run.events,
                }
                for new, run in fresh
            ],
        )
        rows = []
        for new, run in fresh:
            queued = Event(
                EventName.JOB_QUEUED, run.queued_at, {"trigger": run.trigger, "spec_hash": run.spec_hash, "trace_id": run.trace_id}
            )
            rows += _event_rows(run.run_id, 1, [queued, *new.events])
        connection.execute(self._statements.add_event, rows)

    def _holders(self, connection: Connection, keys: Collection[str | None]) -> dict[str | None, Run]:
        if not keys:
            return {}
        wanted = select(schema.run).where(schema.run.c.key.in_(keys), schema.run.c.status.in_(_OPEN))
        return {row.key: run_from(row) for row in connection.execute(wanted)}

    def _ids(self, connection: Connection) -> Iterator[str]:
        """Run ids: the time, but always past the last one given, so that ids sort in the order of acceptance."""
        at = self._clock.now()
        last = connection.execute(select(func.max(schema.run.c.run_id))).scalar()
        if last is not None:
            compact = last.partition("-")[0]
            before = parse_stamp(f"{compact[:4]}-{compact[4:6]}-{compact[6:11]}:{compact[11:13]}:{compact[13:]}")
            at = max(at, before + timedelta(microseconds=1))
        while True:
            suffix = "".join(self._dice.choices(_SUFFIX, k=4))
            yield f"{at:%Y%m%dT%H%M%S}.{at.microsecond:06d}Z-{suffix}"
            at += timedelta(microseconds=1)

    # -- moving -----------------------------------------------------------------------------------

    def apply(
        self,
        moves: Sequence[Move],
        *,
        steps: Sequence[tuple[str, str, bytes]] = (),
        written: Sequence[str] = (),
    ) -> list[Status | None]:
        """Moves, finished steps (run id, name, JSON) and marks "artifacts written", in one transaction.

        Gives for each move None when it holds (also when it did already), else the status that stood in its way.
        """
        with writing(self.engine) as connection:
            refusals, rows = self._judge(connection, moves) if moves else ([], [])
            held = [move for move, new in rows if new]
            if held:
                self._write_moves(connection, held)
            if steps:
                at = stamp(self._clock.now())
                connection.execute(
                    self._statements.add_step,
                    [{"run_id": run_id, "name": name, "value": value.decode(), "at": at} for run_id, name, value in steps],
                )
            if written:
                connection.execute(self._statements.mark_written, [{"b_run_id": run_id} for run_id in written])
            return refusals

    def _judge(self, connection: Connection, moves: Sequence[Move]) -> tuple[list[Status | None], list[tuple[Move, bool]]]:
        ids = [move.run.run_id for move in moves]
        current = {row.run_id: (Status(row.status), row.events) for row in connection.execute(self._statements.standing, {"ids": ids})}
        refusals: list[Status | None] = []
        rows: list[tuple[Move, bool]] = []
        for move in moves:
            run = move.run
            status, events = current.get(run.run_id, (Status.MISSED, 0))
            if (status, events) == (run.status, run.events):
                refusals.append(None)  # done before: a writer that crashed after its commit asks again
                rows.append((move, False))
            elif status is move.expected and may_become(status, run.status):
                refusals.append(None)
                rows.append((move, True))
                current[run.run_id] = (run.status, run.events)
            else:
                refusals.append(status)
        return refusals, rows

    def _write_moves(self, connection: Connection, moves: list[Move]) -> None:
        connection.execute(self._statements.move, [moved(move.run, move.expected) for move in moves])
        attempts = [attempt_row(move.run.run_id, move.attempt) for move in moves if move.attempt]
        if attempts:
            connection.execute(self._statements.put_attempt, attempts)
        events: list[dict[str, Any]] = []
        for move in moves:
            events += _event_rows(move.run.run_id, move.run.events - len(move.events) + 1, move.events)
        if events:
            connection.execute(self._statements.add_event, events)

    def request_cancel(self, run_id: str, *, by: str, reason: str) -> bool:
        """Ask the owner to cancel a running run. False when it is not running any more."""
        request = dump({"at": stamp(self._clock.now()), "by": by, "reason": reason})
        with writing(self.engine) as connection:
            done = connection.execute(
                update(schema.run).where(schema.run.c.run_id == run_id, schema.run.c.status == Status.RUNNING.value).values(cancel=request)
            )
            return done.rowcount == 1

    # -- what the runner asks ---------------------------------------------------------------------

    def look(self, *, limit: int, full_jobs: Collection[str] = (), since: str = "", cancels: bool = True) -> Look:
        """Up to `limit` queued runs in queue order, without those of `full_jobs` and those accepted before `since`."""
        with reading(self.engine) as connection:
            wanted = self._statements.queued.limit(limit)
            if full_jobs:
                wanted = wanted.where(schema.run.c.job_id.not_in(full_jobs))
            if since:
                wanted = wanted.where(schema.run.c.run_id >= since)
            queued = self._with_attempts(connection, [run_from(row) for row in connection.execute(wanted)]) if limit else []
            if not cancels:
                return Look(queued)
            asked = {row.run_id: msgspec.json.decode(row.cancel) for row in connection.execute(self._statements.cancels)}
            return Look(queued, asked, list(connection.execute(self._statements.canceled).scalars()))

    def unfinished(self) -> list[Run]:
        """Runs that are running or wait for their next attempt, oldest first."""
        wanted = (
            select(schema.run)
            .where(schema.run.c.status.in_([Status.RUNNING.value, Status.RETRY_SCHEDULED.value]))
            .order_by(schema.run.c.run_id)
        )
        with reading(self.engine) as connection:
            return self._with_attempts(connection, [run_from(row) for row in connection.execute(wanted)])

    def unwritten(self, limit: int = 500) -> list[str]:
        """Ids of terminal runs whose artifacts are not known to be on disk, oldest first."""
        wanted = (
            select(schema.run.c.run_id)
            .where(text("written = 0"), schema.run.c.status.in_([status.value for status in TERMINAL]))
            .order_by(schema.run.c.run_id)
            .limit(limit)
        )
        with reading(self.engine) as connection:
            return list(connection.execute(wanted).scalars())

    def steps(self, run_id: str) -> dict[str, Any]:
        """Results of the run's finished steps by name."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(schema.step.c.name, schema.step.c.value).where(schema.step.c.run_id == run_id))
            return {row.name: msgspec.json.decode(row.value) for row in rows}

    def known_spec(self, spec_hash: str) -> PinnedSpec | None:
        """The pinned spec with this hash if it was read before. Does not block."""
        known = self._specs.get(spec_hash)
        return known[0] if known else None

    def spec(self, spec_hash: str) -> PinnedSpec:
        """The pinned spec with this hash; remembered, because runs of one job share it."""
        return self._pinned(spec_hash)[0]

    def spec_body(self, spec_hash: str) -> str:
        """The canonical JSON of a pinned spec."""
        return self._pinned(spec_hash)[1]

    def _pinned(self, spec_hash: str) -> tuple[PinnedSpec, str]:
        known = self._specs.get(spec_hash)
        if known is None:
            with reading(self.engine) as connection:
                body = connection.execute(select(schema.spec.c.body).where(schema.spec.c.spec_hash == spec_hash)).scalar_one()
            known = (decode_spec(body), body)
            if len(self._specs) >= _SPECS_REMEMBERED:
                self._specs.clear()
            self._specs[spec_hash] = known
        return known

    # -- what people ask --------------------------------------------------------------------------

    def find_run(self, run_id: str) -> Run | None:
        """One run with its attempts, or None."""
        with reading(self.engine) as connection:
            row = connection.execute(select(schema.run).where(schema.run.c.run_id == run_id)).one_or_none()
            return None if row is None else self._with_attempts(connection, [run_from(row)])[0]

    def run(self, run_id: str) -> Run:
        """One run with its attempts. Raises `run_not_found`."""
        found = self.find_run(run_id)
        if found is None:
            raise LilyError(Code.RUN_NOT_FOUND, f"no run {run_id!r}", hint="see `lily runs list`")
        return found

    def find(self, text: str) -> Run:
        """The run whose id is `text`, or begins or ends with it when that is unique. Raises `run_not_found`."""
        if not re.fullmatch(r"[0-9A-Za-z.-]{1,64}", text):
            raise LilyError(Code.RUN_NOT_FOUND, f"{text!r} can't be a run id", hint="see `lily runs list`")
        c = schema.run.c.run_id
        with reading(self.engine) as connection:
            exact = connection.execute(select(c).where(c == text)).scalar()
            found = (
                [exact]
                if exact
                else list(
                    connection.execute(select(c).where(or_(and_(c >= text, c < text + "~"), c.endswith(f"-{text}"))).limit(2)).scalars()
                )
            )
        if len(found) != 1:
            said = "more than one run fits" if found else "no run"
            raise LilyError(Code.RUN_NOT_FOUND, f"{said} {text!r}", hint="see `lily runs list`")
        return self.run(found[0])

    def runs(
        self,
        *,
        job_id: str | None = None,
        statuses: Collection[str] = (),
        since: str | None = None,
        before: str | None = None,
        limit: int = 20,
    ) -> list[Run]:
        """Newest first. `since` and `before` bound the run ids' time part: 20260504T041500 and the like."""
        c = schema.run.c
        wanted: Select[Any] = select(schema.run).order_by(c.run_id.desc()).limit(limit)
        if job_id is not None:
            wanted = wanted.where(c.job_id == job_id)
        if statuses:
            wanted = wanted.where(c.status.in_(list(statuses)))
        if since is not None:
            wanted = wanted.where(c.run_id >= since)
        if before is not None:
            wanted = wanted.where(c.run_id < before)
        with reading(self.engine) as connection:
            return self._with_attempts(connection, [run_from(row) for row in connection.execute(wanted)])

    def job_ids(self) -> list[str]:
        """Jobs that have runs, by name."""
        with reading(self.engine) as connection:
            return list(connection.execute(select(schema.run.c.job_id).distinct().order_by(schema.run.c.job_id)).scalars())

    def every_run(self, job_id: str) -> Iterator[Run]:
        """All runs of a job, newest first, read page by page."""
        before: str | None = None
        while page := self.runs(job_id=job_id, before=before, limit=1000):
            yield from page
            before = page[-1].run_id

    def counts(self) -> dict[str, int]:
        """Runs by status; statuses without any are left out."""
        with reading(self.engine) as connection:
            return {row[0]: row[1] for row in connection.execute(select(schema.run.c.status, func.count()).group_by(schema.run.c.status))}

    def events(self, run_id: str) -> list[Event]:
        """The run's lifecycle events in order."""
        with reading(self.engine) as connection:
            rows = connection.execute(self._statements.events_of, {"run_id": run_id})
            return [Event(EventName(row.name), row.ts, msgspec.json.decode(row.data)) for row in rows]

    def forget(self, run_ids: Sequence[str]) -> None:
        """Delete terminal runs with all that belongs to them."""
        with writing(self.engine) as connection:
            terminal = [status.value for status in TERMINAL]
            ids = list(
                connection.execute(
                    select(schema.run.c.run_id).where(schema.run.c.run_id.in_(run_ids), schema.run.c.status.in_(terminal))
                ).scalars()
            )
            for table in (schema.step, schema.event, schema.attempt, schema.run):
                connection.execute(table.delete().where(table.c.run_id.in_(ids)))

    def _with_attempts(self, connection: Connection, runs: list[Run]) -> list[Run]:
        wanted = [run.run_id for run in runs if run.started_at is not None]
        if wanted:
            of: dict[str, list[Attempt]] = {}
            for row in connection.execute(self._statements.attempts_of, {"ids": wanted}):
                of.setdefault(row.run_id, []).append(attempt_from(row))
            for run in runs:
                run.attempts = of.get(run.run_id, [])
        return runs


def _event_rows(run_id: str, first: int, events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {"run_id": run_id, "n": first + i, "ts": event.ts, "name": event.event, "data": dump(event.data)} for i, event in enumerate(events)
    ]


class _Statements:
    """Built once, so that SQLAlchemy compiles each once."""

    def __init__(self, insert: Callable[..., Any]) -> None:
        run, attempt, event, step = schema.run, schema.attempt, schema.event, schema.step
        self.add_spec = insert(schema.spec).on_conflict_do_nothing()
        self.add_run = run.insert()
        self.add_event = insert(event).on_conflict_do_nothing(index_elements=["run_id", "n"]).inline()
        self.add_step = insert(step).on_conflict_do_nothing()
        put = insert(attempt)
        changing = ("ended_at", "status", "error", "will_retry", "next_attempt_at")
        self.put_attempt = put.on_conflict_do_update(
            index_elements=["run_id", "number"], set_={name: put.excluded[name] for name in changing}
        )
        self.move = (
            update(run)
            .where(run.c.run_id == bindparam("b_run_id"), run.c.status == bindparam("b_expected"))
            .values({c: bindparam(c) for c in _MOVED})
        )
        self.mark_written = update(run).where(run.c.run_id == bindparam("b_run_id")).values(written=1)
        self.standing = (
            select(run.c.run_id, run.c.status, run.c.events).where(run.c.run_id.in_(bindparam("ids", expanding=True))).with_for_update()
        )
        self.queued = select(run).where(run.c.status == Status.QUEUED.value).order_by(run.c.priority, run.c.enqueued_at, run.c.run_id)
        self.cancels = select(run.c.run_id, run.c.cancel).where(run.c.status == Status.RUNNING.value, run.c.cancel.is_not(None))
        owed = and_(run.c.status == Status.CANCELED.value, text("written = 0"))  # spelled so that the partial index serves it
        self.canceled = select(run.c.run_id).where(owed).order_by(run.c.run_id).limit(_CANCELED_AT_ONCE)
        self.attempts_of = (
            select(attempt).where(attempt.c.run_id.in_(bindparam("ids", expanding=True))).order_by(attempt.c.run_id, attempt.c.number)
        )
        self.events_of = select(event).where(event.c.run_id == bindparam("run_id")).order_by(event.c.n)


_MOVED = (
    "status",
    "enqueued_at",
    "started_at",
    "ended_at",
    "next_attempt_at",
    "tries",
    "interruptions",
    "error",
    "result",
    "events",
    "owner",
    "pid",
    "host",
    "approvals",
)
