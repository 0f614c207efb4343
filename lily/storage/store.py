"""The store: what is owed and what happened, in one body of queries for SQLite and PostgreSQL.

All calls block; async callers go through their `offload`. Every change of a run's state is a compare-and-set.
"""

import random
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, Table, func, select, text

from lily.backlog import PRIORITIES, Gate
from lily.clock import Clock, parse_stamp, stamp
from lily.errors import LilyError
from lily.identity import SUPERVISOR, Actor
from lily.receipts import Written
from lily.runs import OCCUPYING, TERMINAL, Move, Run, Status, may_become
from lily.settings import Queue
from lily.storage import schema
from lily.storage.audit import record, record_all
from lily.storage.database import FILE, close_engine, open_engine, reading, writing
from lily.storage.letter_box import LetterBox
from lily.storage.new_runs import NewRun, accepted, event_rows, first_events, run_rows
from lily.storage.queue import QueueNumbers, refused
from lily.storage.reads import Reads, Spoilt
from lily.storage.receipt_chain import ChainReads, drop_unnamed, keep_pruned, mark
from lily.storage.rows import NONSENSE, PRUNED, as_text, attempt_row, known_status, moved, run_from
from lily.storage.schema_version import upgrade
from lily.storage.state_audit import Submission, ended_approvals, pruned_runs
from lily.storage.statements import CANCELED_AT_ONCE, Statements
from lily.workspace import is_run_id

if TYPE_CHECKING:
    from lily.storage.upgrades import Upgrade

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = [a + b for a in _LETTERS for b in _LETTERS]
_SUFFIXES = len(_PAIRS) ** 2
_MANY = 50
_TIME = len("20260504T090000.000000Z")  # of a run's id
_SPECS_REMEMBERED = 1000
_OPEN = [status.value for status in Status if status not in TERMINAL]


Then = Callable[[Connection, list[Run]], None]  # what belongs into the transaction that accepts these runs


@dataclass(frozen=True, slots=True)
class Look:
    """What the runner asks for: runs to start, in order, cancels that were asked of running ones, and runs that were canceled while
    they waited, so that nobody has written their artifacts. `spoilt` are queued ones whose rows can't be read."""

    queued: list[Run]
    more: bool = False  # the queue may hold more than was asked for
    cancels: dict[str, dict[str, Any]] = field(default_factory=dict)
    canceled: list[str] = field(default_factory=list)
    spoilt: list[Spoilt] = field(default_factory=list)


class _Refused(Exception):
    """Not all that was asked for holds, so that none of it is stored."""


class Store(Reads):
    """One workspace's store."""

    def __init__(
        self,
        url: str,
        *,
        database_file: Path,
        clock: Clock,
        dice: random.Random | None = None,
        limits: Queue | None = None,
        max_dead_letters: int = 1000,
        may_upgrade: Callable[[str], None] = lambda found: None,
    ) -> None:
        """Connects and brings the schema up to date, after a copy of what was there. `dice` makes run ids repeatable in tests; without
        `limits` the queue has none; `may_upgrade` is told which schema is there, and raises where it must stay."""
        super().__init__()
        self.engine = open_engine(url, database_file=database_file)
        self._clock = clock
        self._dice = dice or secrets.SystemRandom()
        self._insert = _insert_of(self.engine.dialect.name)
        self.statements = Statements(self._insert)
        self.letters = LetterBox(self._insert, max_dead_letters)
        self.queue = QueueNumbers(self._insert, limits)
        self.chain = ChainReads(self.engine)
        self._stored_specs: set[str] = set()  # specs are never deleted
        self._stored_in: Any = None  # the database's file that has them
        self.upgraded: Upgrade | None = None  # what opening it has changed
        self._backups, self._may_upgrade = database_file.parent / "backups", may_upgrade
        try:
            self.made = upgrade(self.engine, self._before_upgrade)  # by opening it: there was none
        except LilyError:
            close_engine(self.engine)
            raise

    def _before_upgrade(self, found: str) -> None:
        from lily.storage.upgrades import copy_before_upgrade  # once in the life of a schema

        self._may_upgrade(found)
        self.upgraded = copy_before_upgrade(self.engine, self._backups, found, self._clock.now())

    def upserts(self, table: Table) -> Any:
        """An INSERT into `table` that knows ON CONFLICT, for this store's database."""
        return self._insert(table)

    def close(self) -> None:
        """Give all connections back."""
        close_engine(self.engine)

    # -- accepting --------------------------------------------------------------------------------

    def submit(self, new: Sequence[NewRun], then: Then | None = None, by: Submission | None = None) -> list[Run]:
        """Accept runs in one transaction, all or none. A run whose key belongs to a run that is not terminal is that run.

        `then` does more in the same transaction; what it raises takes all of it back. `by` is audited for the runs that are new. Raises
        `queue_full` and `queue_backpressure`.
        """
        with writing(self.engine) as connection:
            gate = self.queue.gate(connection)
            held = self._holders(connection, {n.key for n in new if n.key})
            dice, ts = self._dice_for(len(new)), stamp(self._clock.now())
            ids = self._ids(connection, dice)
            runs: list[Run] = []
            fresh: list[tuple[NewRun, Run]] = []
            for each in new:
                run = held.get(each.key) if each.key else None
                if run is None:
                    self._let_in(gate, each, len(new))
                    run = accepted(each, next(ids), f"{dice.getrandbits(128):032x}", ts)
                    fresh.append((each, run))
                    if each.key:
                        held[each.key] = run
                runs.append(run)
            if fresh:
                self._insert_runs(connection, fresh, gate)
                if by is not None:
                    record(connection, by.actor, by.change([run for _, run in fresh]), ts)
            if then is not None:
                then(connection, runs)
        self._remember_specs(fresh)  # only now are they stored
        return runs

    def _remember_specs(self, fresh: list[tuple[NewRun, Run]]) -> None:
        if len(self._stored_specs) + len(fresh) > _SPECS_REMEMBERED:
            self._stored_specs.clear()
        if len(fresh) <= _SPECS_REMEMBERED:
            self._stored_specs.update([new.spec_hash for new, _ in fresh])

    def _let_in(self, gate: Gate, new: NewRun, count: int) -> None:
        code = None if new.missed else gate.admit(PRIORITIES[new.priority])
        if code is not None:
            raise refused(code, gate, count, f"job {new.job_id}")

    def accept(self, connection: Connection, new: Sequence[NewRun]) -> list[Run]:
        """Accept runs without a key that the queue's gate has let in, inside a transaction that writes more."""
        dice, ts = self._dice_for(len(new)), stamp(self._clock.now())
        ids = self._ids(connection, dice)
        fresh = [(each, accepted(each, next(ids), f"{dice.getrandbits(128):032x}", ts)) for each in new]
        if fresh:
            self._insert_runs(connection, fresh)
        return [run for _, run in fresh]

    def _dice_for(self, count: int) -> random.Random:
        """The system's dice are slow: many throws are made with others, which they seed."""
        return self._dice if count < _MANY else random.Random(self._dice.getrandbits(128))

    def _insert_runs(self, connection: Connection, fresh: list[tuple[NewRun, Run]], gate: Gate | None = None) -> None:
        if connection.info.get(FILE) != self._stored_in:
            self._stored_in = connection.info.get(FILE)
            self._stored_specs.clear()
        specs = {new.spec_hash: new.spec for new, _ in fresh if new.spec_hash not in self._stored_specs}
        if specs:
            self.statements.add_spec(connection, ((h, body.decode()) for h, body in specs.items()))
        self.statements.add_run(connection, run_rows(fresh))
        self.statements.add_event(connection, first_events(fresh))
        self.queue.count(connection, Counter([run.status.value for _, run in fresh]), fresh[0][1].queued_at, gate)

    def _holders(self, connection: Connection, keys: Collection[str | None]) -> dict[str | None, Run]:
        if not keys:
            return {}
        wanted = select(schema.run).where(schema.run.c.key.in_(keys), schema.run.c.status.in_(_OPEN))
        return {row.key: run_from(row) for row in connection.execute(wanted)}

    def _ids(self, connection: Connection, dice: random.Random) -> Iterator[str]:
        """Run ids: the time, but always past the last one given, so that ids sort in the order of acceptance."""
        at = self._clock.now()
        ((last,),) = self.statements.newest(connection)
        if last is not None and not is_run_id(as_text(last)):  # edited by hand: the newest of those that begin with a time
            r = schema.run.c.run_id
            last = connection.execute(select(func.max(r)).where(r < ":")).scalar()
        if last is not None and is_run_id(last) and last[:_TIME] >= _compact(stamp(at)):
            compact = last[:_TIME]
            before = parse_stamp(f"{compact[:4]}-{compact[4:6]}-{compact[6:11]}:{compact[11:13]}:{compact[13:]}")
            at = before + timedelta(microseconds=1)
        while True:
            ts, micro = stamp(at), at.microsecond  # strftime takes ten times as long
            second = f"{ts[:4]}{ts[5:7]}{ts[8:13]}{ts[14:16]}{ts[17:19]}"
            for n in range(micro, 1_000_000):
                front, back = divmod(int(dice.random() * _SUFFIXES), len(_PAIRS))
                yield f"{second}.{n:06d}Z-{_PAIRS[front]}{_PAIRS[back]}"
            at += timedelta(microseconds=1_000_000 - micro)

    # -- moving -----------------------------------------------------------------------------------

    def apply(
        self,
        moves: Sequence[Move],
        *,
        steps: Sequence[tuple[str, str, bytes]] = (),
        written: Sequence[Written] = (),
    ) -> list[Status | None]:
        """Moves, finished steps (run id, name, JSON) and marks "artifacts written", in one transaction. Marks come in the order in
        which the receipts were written.

        Gives for each move None when it holds (also when it did already), else the status that stood in its way: that of before, where
        the run was to go on and somebody has asked for its cancel, or was to start and the worker has been paused.
        """
        if all(may_become(move.expected, move.run.status) for move in moves):
            with suppress(_Refused):
                return self._apply(moves, steps, written, judged=False)
        return self._apply(moves, steps, written, judged=True)

    def _apply(
        self, moves: Sequence[Move], steps: Sequence[tuple[str, str, bytes]], written: Sequence[Written], *, judged: bool
    ) -> list[Status | None]:
        """Nearly always all moves hold, so they are judged by their effect; raises _Refused when one does not, and nothing is stored."""
        with writing(self.engine) as connection:
            refusals: list[Status | None] = [None] * len(moves)
            held = moves
            paused = any(move.starts for move in moves) and self._paused(connection)
            if moves and (judged or paused):
                refusals, held = self._judge(connection, moves, paused)
            if held:
                self.write_moves(connection, held)
                ended = ended_approvals(held)
                if ended:
                    record_all(connection, SUPERVISOR, ended, stamp(self._clock.now()))
            if steps:
                at = stamp(self._clock.now())
                self.statements.add_step(
                    connection,
                    [{"run_id": run_id, "name": name, "value": value.decode(), "at": at} for run_id, name, value in steps],
                )
            if written:
                mark(connection, self.statements, written)
            return refusals

    def _paused(self, connection: Connection) -> bool:
        return bool(self.statements.paused(connection, key=schema.WORKER_PAUSE))

    def _judge(self, connection: Connection, moves: Sequence[Move], paused: bool = False) -> tuple[list[Status | None], list[Move]]:
        """What stands in the way of each move, and the moves that are still to be made."""
        ids = [move.run.run_id for move in moves]
        rows = connection.execute(self.statements.standing, {"ids": ids})
        current = {
            run_id: (known_status(status), events, ended_at, cancel is not None) for run_id, status, events, ended_at, cancel in rows
        }
        refusals: list[Status | None] = []
        held: list[Move] = []
        for move in moves:
            run = move.run
            status, events, ended_at, canceling = current.get(run.run_id, (Status.MISSED, 0, None, False))
            # Done before: a writer that crashed after its commit asks again. An end of another time is somebody else's.
            if (status, events, ended_at) == (run.status, run.events, run.ended_at):
                refusals.append(None)
                continue
            expected = (status, events) == (move.expected, run.events - len(move.events)) and may_become(status, run.status)
            if expected and not (canceling and move.goes_on) and not (paused and move.starts):
                refusals.append(None)
                held.append(move)
                current[run.run_id] = (run.status, run.events, run.ended_at, canceling)
            else:
                refusals.append(status)
        return refusals, held

    def apply_with(self, move: Move, more: Callable[[Connection], None]) -> Status | None:
        """One move, and what `more` writes beside it if it holds, in one transaction. Gives None, or the status that stood in its way: also
        when somebody else has made the very same move."""
        with writing(self.engine) as connection:
            (refusal,), held = self._judge(connection, [move])
            if not held:
                return refusal or move.run.status
            self.write_moves(connection, held)
            more(connection)
            return None

    def write_moves(self, connection: Connection, moves: Sequence[Move]) -> None:
        """Carry out moves that hold, inside a transaction that writes more. Raises `_Refused` when one does not."""
        if self.statements.move(connection, [moved(move) for move in moves]) != len(moves):
            raise _Refused
        attempts = [attempt_row(move.run.run_id, move.attempt) for move in moves if move.attempt]
        if attempts:
            self.statements.put_attempt(connection, attempts)
        events: list[tuple[Any, ...]] = []
        for move in moves:
            events += event_rows(move.run.run_id, move.run.events - len(move.events) + 1, move.events)
        if events:
            self.statements.add_event(connection, events)
        self.letters.post(connection, moves)
        self.queue.count_moves(connection, moves, stamp(self._clock.now()))

    # -- what the runner asks ---------------------------------------------------------------------

    def look(
        self,
        *,
        limit: int,
        full_jobs: Collection[str] = (),
        since: str = "",
        cancels: bool = True,
        known: Collection[str] = (),
        spoilt_ids: Collection[Any] = (),
        canceled_after: str = "",
    ) -> Look:
        """The first `limit` queued runs in order, without those of `full_jobs`, those before `since`, the `known`, and the `spoilt_ids`.

        None at all while the worker is paused. Of the runs that were canceled, some that come after the id `canceled_after`."""
        with reading(self.engine) as connection:
            taking = not (limit and self._paused(connection))
            rows = self._queued(connection, limit, full_jobs, since, spoilt_ids) if limit and taking else ()
            more = taking and len(rows) == limit
            spoilt: list[Spoilt] = []
            queued = self.sound(connection, [row for row in rows if row[0] not in known], spoilt)
            self.read_ahead(connection, {run.spec_hash for run in queued})
            if not cancels:
                return Look(queued, more, spoilt=spoilt)
            asked = {run_id: _request(request) for run_id, request in self.statements.cancels(connection)}
            canceled = self.statements.canceled(connection, after=canceled_after, limit=CANCELED_AT_ONCE)
            return Look(queued, more, asked, [run_id for (run_id,) in canceled], spoilt)

    def _queued(
        self, connection: Connection, limit: int, full_jobs: Collection[str], since: str, spoilt_ids: Collection[Any]
    ) -> Sequence[Any]:
        if not (full_jobs or since or spoilt_ids or self.queue.ages):
            return self.statements.first_queued(connection, limit=limit)
        wanted = self.statements.queued
        if full_jobs:
            wanted = wanted.where(schema.run.c.job_id.not_in(full_jobs))
        if spoilt_ids:
            wanted = wanted.where(schema.run.c.run_id.not_in(spoilt_ids))
        if since:
            wanted = wanted.where(schema.run.c.run_id >= since)
        return self.queue.in_order(connection, wanted, limit, self._clock.now())

    def held(self, spoilt: list[Spoilt] | None = None) -> list[Run]:
        """Claimed runs that wait for the scheduler's word, oldest first."""
        with reading(self.engine) as connection:
            return self.held_within(connection, spoilt)

    def held_within(self, connection: Connection, spoilt: list[Spoilt] | None = None) -> list[Run]:
        """The same, inside a transaction."""
        r = schema.run
        wanted = select(r).where(r.c.status == Status.QUEUED.value, r.c.held == 1).order_by(r.c.run_id)
        return self.sound(connection, connection.execute(wanted).all(), spoilt)

    def unfinished(self, spoilt: list[Spoilt] | None = None) -> list[Run]:
        """Runs that are running or wait for their next attempt or an approval, oldest first."""
        wanted = select(schema.run).where(schema.run.c.status.in_([status.value for status in OCCUPYING])).order_by(schema.run.c.run_id)
        with reading(self.engine) as connection:
            return self.sound(connection, connection.execute(wanted).all(), spoilt)

    def unwritten(self, limit: int = 500, after: str = "") -> list[str]:
        """Ids of terminal runs after this one whose artifacts are not known to be on disk, oldest first."""
        wanted = (
            select(schema.run.c.run_id)
            .where(text("written = 0"), schema.run.c.status.in_([status.value for status in TERMINAL]), schema.run.c.run_id > after)
            .order_by(schema.run.c.run_id)
            .limit(limit)
        )
        with reading(self.engine) as connection:
            return list(connection.execute(wanted).scalars())

    def forget(
        self, run_ids: Sequence[str], by: Actor, reason: str = "", then: Callable[[Collection[str]], Collection[str]] = lambda ids: ()
    ) -> None:
        """Delete terminal runs with all that belongs to them; the audit says which they were. `then` is told which go, does more before it
        holds, and gives those that have to stay."""
        wanted = list(run_ids)
        while wanted:
            with suppress(_Refused), writing(self.engine) as connection:
                ids = self._forget(connection, wanted, by, reason)
                # After all that the store may refuse, for it can't be taken back; asked again, it has nothing left to do.
                staying = set(then(ids))
                wanted = [run_id for run_id in ids if run_id not in staying]
                if staying:
                    raise _Refused
                return

    def _forget(self, connection: Connection, run_ids: Sequence[str], by: Actor, reason: str) -> list[str]:
        terminal = [status.value for status in TERMINAL]
        r = schema.run.c
        found = connection.execute(select(r.run_id, r.status).where(r.run_id.in_(run_ids), r.status.in_(terminal))).all()
        ids = [run_id for run_id, _ in found]
        record_all(connection, by, pruned_runs(ids, reason), stamp(self._clock.now()))
        gone = Counter(status for _, status in found)
        self.queue.count(connection, {status: -by for status, by in gone.items()}, stamp(self._clock.now()))
        self._note_pruned(connection, ids)
        keep_pruned(connection, self.upserts, ids)
        self.letters.drop(connection, ids)
        for table in (schema.step, schema.approval_check, schema.event, schema.attempt, schema.run):
            connection.execute(table.delete().where(table.c.run_id.in_(ids)))
        return ids

    def forget_unnamed(self) -> None:
        """Forget the receipts of deleted runs that nothing names any more: once after many were deleted, for it reads all runs."""
        with writing(self.engine) as connection:
            drop_unnamed(connection)

    def _note_pruned(self, connection: Connection, ids: Sequence[str]) -> None:
        """Remember how far each job's runs were pruned: the window ledger goes on naming them, rightly."""
        r, m = schema.run.c, schema.meta
        newest = connection.execute(select(r.job_id, func.max(r.run_id)).where(r.run_id.in_(ids)).group_by(r.job_id)).all()
        keys = [f"{PRUNED}{job_id}" for job_id, _ in newest]
        before = {row[0]: row[1] for row in connection.execute(select(m.c.key, m.c.value).where(m.c.key.in_(keys)))}
        rows = [{"key": key, "value": max(before.get(key, ""), run_id)} for key, (_, run_id) in zip(keys, newest, strict=True)]
        if rows:
            put = self.upserts(m)
            connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": put.excluded.value}), rows)


def _insert_of(dialect: str) -> Any:
    # Each dialect takes a tenth of a second to load, and one is enough.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    return insert


def _request(text: str) -> dict[str, Any]:
    """Who asked for a cancel, and why. Nonsense in its place, written by hand, is no reason to go on with the run."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except NONSENSE:
        return {"at": "", "by": "", "reason": ""}


def _compact(ts: str) -> str:
    """A stamp as it stands in a run's id."""
    return f"{ts[:4]}{ts[5:7]}{ts[8:13]}{ts[14:16]}{ts[17:]}"
