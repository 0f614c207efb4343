"""The window ledger in the store: versions of triggers, states, and one row for every window, in the transaction of its run.

`claim` is the only writer of windows. What is decided is `lily.ledger.settle`; here it is read, asked and written down.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, case, func, select, text, update

from lily.clock import parse_stamp, stamp
from lily.conditions.verdict import Looked, Standing, Wanted
from lily.errors import Code, LilyError, lacks_spec
from lily.identity import SUPERVISOR
from lily.ledger import TICK, Control, Failure, Row, Schedule, Settlement, State, Version, nobody_looked, settle
from lily.redaction import references
from lily.runs import Event, Run, Status
from lily.storage import schema
from lily.storage.audit import Actor, record_all
from lily.storage.cancels import cancel_previous
from lily.storage.database import reading, writing
from lily.storage.idle_windows import settle_idle
from lily.storage.looks import judging, record_looks, standings
from lily.storage.new_runs import NewRun
from lily.storage.rows import NONSENSE, dump, why_not
from lily.storage.state_audit import registered, removed, state_change
from lily.storage.statements import ForRows
from lily.storage.store import Store
from lily.storage.window_ledgers import NEVER, chunks, edited, ledgers
from lily.storage.window_refusals import turn_away
from lily.storage.window_runs import Owed, fired_run, missed_run

_SCHEDULES_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Registration:
    """A job whose windows are to be: its trigger, and the spec that its runs pin."""

    job_id: str
    trigger: dict[str, Any]
    timezone: str | None
    spec_hash: str
    spec: bytes | None = None  # canonical JSON; None when the store is known to have it


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job's schedule stands in the store. `nonsense` says why that can't be read, after an edit by hand; the rest then says
    nothing."""

    job_id: str
    state: State
    until: datetime | None
    reason: str
    by: str
    changed_at: datetime | None
    set_id: str | None
    settled: datetime
    spec_hash: str | None
    version: Version | None  # the one that holds now; None when no window of the job is to come
    nonsense: str = ""

    def state_at(self, now: datetime) -> State:
        """The state, a temporary one only until its end."""
        return State.ACTIVE if self.until is not None and self.until <= now else self.state


@dataclass(frozen=True, slots=True)
class Claim:
    """What a settlement did: rows written, runs to start once the scheduler gives its word, and runs that report missed windows."""

    job_id: str
    settlement: Settlement
    fired: list[Run] = field(default_factory=list)
    missed: list[Run] = field(default_factory=list)
    problem: str = ""  # why this job's windows can't be computed
    refused: str = ""  # the code with which the queue refused a window, if it did
    reports: dict[datetime, str] = field(default_factory=dict)  # refused windows that a run of before reports
    look: Wanted | None = None  # a condition's window that can't be decided before somebody looked


class Windows:
    """The ledger of one store. All calls block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._schedules: dict[tuple[str, int], Schedule] = {}
        s, v, w = schema.schedule, schema.trigger_version, schema.window
        insert = store.upserts
        columns = ["job_id", "settled", "spec_hash"]
        add = insert(s)
        self._put_schedule = ForRows(
            add.on_conflict_do_update(index_elements=["job_id"], set_={"spec_hash": add.excluded.spec_hash}).inline(), columns
        )
        self._add_version = ForRows(v.insert().inline(), [c.name for c in v.c])
        self._add_window = ForRows(w.insert().inline(), [c.name for c in w.c])
        self._settled = ForRows(
            update(s).where(s.c.job_id == bindparam("b_job_id")).values(settled=bindparam("b_settled")), ["b_settled", "b_job_id"]
        )
        self._close = ForRows(
            update(v).where(v.c.job_id == bindparam("b_job_id"), v.c.until.is_(None)).values(until=bindparam("b_until")),
            ["b_until", "b_job_id"],
        )

    # -- versions ---------------------------------------------------------------------------------

    def states(self, job_ids: Collection[str] | None = None) -> dict[str, JobState]:
        """How these jobs' schedules stand, or all of them, in the order of their ids. Raises LilyError where that can't be read."""
        found = self.states_or_nonsense(job_ids)
        for state in found.values():
            if state.nonsense:
                raise edited(state.job_id, state.nonsense)
        return found

    def states_or_nonsense(self, job_ids: Collection[str] | None = None) -> dict[str, JobState]:
        """The same, where one that can't be read hides no other."""
        with reading(self._store.engine) as connection:
            return self._states(connection, job_ids)

    def _states(self, connection: Connection, job_ids: Collection[str] | None) -> dict[str, JobState]:
        s, v = schema.schedule, schema.trigger_version
        found: dict[str, JobState] = {}
        for some in chunks(job_ids):
            wanted = (
                select(s, v.c.number, v.c.since, v.c.trigger, v.c.timezone, v.c.spec_hash)
                .select_from(s.outerjoin(v, (v.c.job_id == s.c.job_id) & v.c.until.is_(None)))
                .order_by(s.c.job_id)
            )
            for row in connection.execute(wanted if some is None else wanted.where(s.c.job_id.in_(some))):
                found[row[0]] = _state_from(row)
        return found

    def register(self, jobs: Sequence[Registration], now: datetime) -> dict[str, JobState]:
        """Have these jobs' triggers hold from now on, in one transaction; gives how each stands then.

        An equal trigger goes on as it is. A disabled job gets its spec and no version, or one from the end of its disabling on. A version
        begins where the ledger and the versions before it end, so that a clock that stepped back makes no second window.
        """
        with writing(self._store.engine) as connection:
            before = self._states(connection, [job.job_id for job in jobs])
            at = stamp(now)
            specs = [(job.spec_hash, job.spec.decode()) for job in jobs if job.spec is not None]
            if specs:
                self._store.statements.add_spec(connection, specs)
            changed = [job for job in jobs if job.job_id not in before or before[job.job_id].spec_hash != job.spec_hash]
            if changed:
                self._put_schedule(connection, [{"job_id": job.job_id, "settled": at, "spec_hash": job.spec_hash} for job in changed])
            opened = self._open_versions(connection, [job for job in jobs if differs(before.get(job.job_id), job)], before, now)
            after = {job.job_id: _registered(before.get(job.job_id), job, opened.get(job.job_id), now) for job in jobs}
            record_all(connection, SUPERVISOR, registered(before, after), at)
            return after

    def _open_versions(
        self, connection: Connection, jobs: Sequence[Registration], before: Mapping[str, JobState], now: datetime
    ) -> dict[str, Version]:
        """New versions of these jobs' triggers in place of those that hold; gives them by job."""
        if not jobs:
            return {}
        v = schema.trigger_version
        last: dict[str, int] = {}
        ended: dict[str, datetime] = {}  # where windows of older versions end: no instant belongs to two
        for some in chunks([job.job_id for job in jobs]):
            held = func.max(case((v.c.until > v.c.since, v.c.until)))
            wanted = select(v.c.job_id, func.max(v.c.number), held).where(v.c.job_id.in_(some or [])).group_by(v.c.job_id)
            for job_id, number, until in connection.execute(wanted):
                last[job_id] = number
                if until is not None:
                    with suppress(*NONSENSE):  # edited by hand: the ledger's end is later, as far as it was followed
                        ended[job_id] = parse_stamp(until)
        since = {job.job_id: max(now, ended.get(job.job_id, now), *_bounds(before.get(job.job_id), now)) for job in jobs}
        self._close(connection, [{"b_job_id": job.job_id, "b_until": stamp(since[job.job_id])} for job in jobs if job.job_id in last])
        opened = {
            job.job_id: Version(last.get(job.job_id, 0) + 1, since[job.job_id], None, job.trigger, job.timezone, job.spec_hash)
            for job in jobs
        }
        rows = [
            {
                "job_id": job_id,
                "number": version.number,
                "since": stamp(version.since),
                "until": None,
                "trigger": dump(version.trigger),
                "timezone": version.timezone,
                "spec_hash": version.spec_hash,
            }
            for job_id, version in opened.items()
        ]
        self._add_version(connection, rows)
        return opened

    def close(self, job_ids: Sequence[str], now: datetime) -> None:
        """No windows of these jobs from now on; those before are still settled."""
        with writing(self._store.engine) as connection:
            before = self._states(connection, job_ids)
            self._close(connection, [{"b_job_id": id, "b_until": stamp(max(now, each.settled))} for id, each in before.items()])
            record_all(connection, SUPERVISOR, removed(before), stamp(now))

    # -- states -----------------------------------------------------------------------------------

    def changes(self, after: int) -> tuple[int, list[str]]:
        """(the newest control's number, jobs whose state a person changed since the one numbered `after`)."""
        c = schema.control
        with reading(self._store.engine) as connection:
            rows = connection.execute(select(c.c.sequence, c.c.job_id).where(c.c.sequence > after).order_by(c.c.sequence)).all()
            return (rows[-1][0] if rows else after), sorted({row[1] for row in rows})

    def newest_change(self) -> int:
        """The newest control's number; 0 when there is none."""
        with reading(self._store.engine) as connection:
            return connection.execute(select(func.max(schema.control.c.sequence))).scalar() or 0

    def change(self, job_ids: Sequence[str], to: Control, actor: Actor | None = None) -> None:
        """Set the state of these jobs, from `to.at` on. Disabling ends their windows, enabling begins them again with the last trigger, and
        so does the end of a disabling that has one. Audited for `actor`, or by the name that stands in `to`."""
        if not job_ids:
            return
        with writing(self._store.engine) as connection:
            before = self._states(connection, job_ids)
            c = [
                {
                    "job_id": job_id,
                    "at": stamp(to.at),
                    "state": to.state.value,
                    "until": stamp(to.until) if to.until else None,
                    "reason": to.reason,
                    "by": to.by,
                    "set_id": to.set_id,
                }
                for job_id in job_ids
            ]
            connection.execute(schema.control.insert(), c)
            by = actor or Actor(name=to.by)
            record_all(connection, by, [state_change(job_id, before.get(job_id), to) for job_id in job_ids], stamp(to.at))
            s = schema.schedule
            told = [{**{k: v for k, v in row.items() if k != "at"}, "changed_at": row["at"], "settled": row["at"]} for row in c]
            add = self._store.upserts(s)
            kept = ("state", "until", "reason", "by", "changed_at", "set_id")
            connection.execute(add.on_conflict_do_update(index_elements=["job_id"], set_={k: add.excluded[k] for k in kept}), told)
            if to.state is State.DISABLED:
                closing = [{"b_job_id": id, "b_until": stamp(max(to.at, each.settled))} for id, each in before.items()]
                if closing:
                    self._close(connection, closing)
                if to.until is not None:
                    ending = [each for each in before.values() if each.version is not None or each.state is State.DISABLED]
                    self._reopen(connection, ending, max(to.at, to.until - TICK))  # a window at its very end runs
            else:
                self._reopen(connection, [each for each in before.values() if each.state_at(to.at) is State.DISABLED], to.at)

    def _reopen(self, connection: Connection, jobs: Sequence[JobState], now: datetime) -> None:
        """Windows of these jobs again, as their last spec defines them: also while no supervisor is there to read the specs."""
        again = []
        for job in jobs:
            if job.spec_hash is not None:
                try:
                    spec = self._store.spec(job.spec_hash)
                except LilyError as exc:
                    if not lacks_spec(exc):
                        raise
                    continue  # its file says so once it is read: the others need not wait for that
                again.append(Registration(job.job_id, spec.trigger, spec.timezone, job.spec_hash))
        self._open_versions(connection, again, {job.job_id: replace(job, state=State.ACTIVE) for job in jobs}, now)

    # -- claims -----------------------------------------------------------------------------------

    def settle_idle(self, states: Mapping[str, JobState], now: datetime) -> set[str]:
        """Settle up to `now`, in one transaction, those of these jobs that have no window to decide by then; gives their ids."""
        return settle_idle(self._store, states, self.schedule, now)  # type: ignore[arg-type]  # the ledger knows less of a schedule

    def claim(
        self,
        job_ids: Sequence[str],
        now: datetime,
        *,
        failures: Mapping[str, Failure] | None = None,
        told: Mapping[str, Sequence[Event]] | None = None,
        again: bool = False,
        looked: Mapping[str, Looked] | None = None,
    ) -> list[Claim]:
        """Settle these jobs' windows up to `now`: rows, runs and events in one transaction, in the order given.

        `failures` are stretches whose windows could not be claimed in time; `told` are scheduler events that belong into the run of the
        next window. `looked` is what was found for windows that asked for a look, whose jobs are settled up to when they asked. A window
        that has its row starts nothing. `again`: this was asked before and the answer may have got lost, so that
        runs which are still without the scheduler's word come again, and those that report missed windows and are not written.
        """
        with writing(self._store.engine) as connection:
            owed, nonsense = ledgers(connection, job_ids, failures or {})
            before = standings(connection, looked) if looked else {}
            claims, news = [], []
            gate = self._store.queue.gate(connection)
            for job in owed:
                job_id = job.ledger.job_id
                try:
                    claim, new = self._settle(job, now, (told or {}).get(job_id, ()), (looked or {}).get(job_id), before.get(job_id))
                except LilyError as exc:
                    if not lacks_spec(exc):
                        raise
                    claim, new = Claim(job_id, Settlement(), problem=exc.message), []
                turned = turn_away(connection, gate, job, claim.settlement, new, now)
                if turned is not None:
                    claim, new = replace(claim, settlement=turned.settlement, refused=turned.code, reports=turned.reports), turned.new
                claims.append(claim)
                news.append(new)
            self._accept(connection, claims, news, now)
            self._cancel(connection, claims, now)
            if looked:
                record_looks(connection, [(looked[each.job_id], each.settlement) for each in claims if each.job_id in looked], before, now)
            if again:
                self._told_again(connection, claims)
            return claims + [Claim(job_id, Settlement(), problem=why) for job_id, why in nonsense.items()]

    def _settle(
        self, job: Owed, now: datetime, told: Sequence[Event], looked: Looked | None, before: Standing | None
    ) -> tuple[Claim, list[tuple[list[Row], NewRun]]]:
        job_id = job.ledger.job_id
        until = now if looked is None else looked.wanted.asked
        judge = nobody_looked if looked is None else judging(looked, before)
        try:
            settlement = settle(job.ledger, until, lambda version: self.schedule(job_id, version), judge=judge)
        except LilyError as exc:
            return Claim(job_id, Settlement(), problem=exc.message), []
        look = None if settlement.look is None else self._wanted(job, settlement.look, until)
        if not settlement.rows:
            return Claim(job_id, settlement, look=look), []
        body = self._store.spec_body(job.spec_hash).encode()
        new = [([row], fired_run(job, row, settlement, body, now, told, looked)) for row in settlement.fired]
        new += [(batch, missed_run(job, batch, body, now, job.ledger.failure)) for batch in settlement.missed_batches()]
        return Claim(job_id, settlement, look=look), new

    def _wanted(self, job: Owed, row: Row, asked: datetime) -> Wanted:
        version, spec = row.version, self._store.spec(job.spec_hash)
        granted, secrets = frozenset(spec.capabilities), frozenset(references([spec.bindings, spec.target.input]))
        return Wanted(job.ledger.job_id, row.at, version.number, asked, version.trigger, version.timezone, granted, secrets)

    def _accept(
        self, connection: Connection, claims: Sequence[Claim], news: Sequence[list[tuple[list[Row], NewRun]]], now: datetime
    ) -> None:
        flat = [(claim, rows, new) for claim, some in zip(claims, news, strict=True) for rows, new in some]
        runs = self._store.accept(connection, [new for _, _, new in flat])
        run_of = {(claim.job_id, at): report for claim in claims for at, report in claim.reports.items()}
        for (claim, rows, new), run in zip(flat, runs, strict=True):
            (claim.missed if new.missed else claim.fired).append(run)
            run_of |= {(claim.job_id, row.at): run.run_id for row in rows}
        recorded = stamp(now)
        windows = [
            {
                "job_id": claim.job_id,
                "at": stamp(row.at),
                "status": row.status.value,
                "version": row.version.number,
                "run_id": run_of.get((claim.job_id, row.at)),
                "into_at": stamp(row.into) if row.into else None,
                "code": row.code,
                "recorded_at": recorded,
            }
            for claim in claims
            for row in claim.settlement.rows
        ]
        if windows:
            self._add_window(connection, windows)
        through = [(claim.job_id, claim.settlement.through) for claim in claims if claim.settlement.through is not None]
        if through:
            self._settled(connection, [{"b_job_id": job_id, "b_settled": stamp(at)} for job_id, at in through])

    def _cancel(self, connection: Connection, claims: Sequence[Claim], now: datetime) -> None:
        """End the runs that a fire with `overlap: cancel_previous` replaces."""
        for claim in claims:
            cancel_previous(self._store, connection, claim.settlement.cancels, now)

    def _told_again(self, connection: Connection, claims: Sequence[Claim]) -> None:
        asked = {claim.job_id: claim for claim in claims}
        for claim in claims:
            claim.fired.clear()
            claim.missed.clear()
        for run in self._store.held_within(connection):
            if run.job_id in asked:
                asked[run.job_id].fired.append(run)
        r = schema.run.c
        unwritten = select(schema.run).where(text("written = 0"), r.status == Status.MISSED.value).order_by(r.run_id)
        for run in self._store.sound(connection, [row for row in connection.execute(unwritten) if row.job_id in asked]):
            asked[run.job_id].missed.append(run)

    def schedule(self, job_id: str, version: Version) -> Schedule:
        """The schedule of a stored version; remembered. Raises LilyError (`job_trigger_invalid`) when this machine can't build it."""
        key = (job_id, version.number)
        found = self._schedules.get(key)
        if found is None:
            from lily.triggers.schedule import schedule_of

            if len(self._schedules) >= _SCHEDULES_REMEMBERED:
                self._schedules.clear()
            try:
                found = self._schedules[key] = schedule_of(version.trigger, version.timezone)
            except (ValueError, TypeError, LookupError, AttributeError) as exc:  # written by another Lily
                raise LilyError(Code.JOB_TRIGGER_INVALID, f"{type(exc).__name__}: {exc}", where=f"job {job_id}") from exc
        return found


def differs(before: JobState | None, job: Registration) -> bool:
    """Whether the job needs a new version of its trigger."""
    if before is None or before.version is None:
        return before is None or before.state is not State.DISABLED or before.until is not None
    return (before.version.trigger, before.version.timezone) != (job.trigger, job.timezone)


def _registered(before: JobState | None, job: Registration, opened: Version | None, now: datetime) -> JobState:
    """How a job stands once it is registered: to read it back takes an eighth of what registering does."""
    if before is not None:
        return replace(before, spec_hash=job.spec_hash, version=opened or before.version)
    return JobState(job.job_id, State.ACTIVE, None, "", "", None, None, now, job.spec_hash, opened)


def _bounds(before: JobState | None, now: datetime) -> list[datetime]:
    """What a new version may not begin before: the ledger's end, and that of a disabling."""
    if before is None:
        return []
    if before.until is not None and before.state_at(now) is State.DISABLED:
        return [before.settled, before.until - TICK]
    return [before.settled]


def _state_from(row: Any) -> JobState:
    try:
        return _read(row)
    except NONSENSE as error:
        return JobState(row[0], State.ACTIVE, None, "", "", None, None, NEVER, None, None, nonsense=why_not(error))


def _read(row: Any) -> JobState:
    job_id, state, until, reason, by, changed_at, set_id, settled, spec_hash, number, since, trigger, timezone, pinned = row
    held = None
    if number is not None:
        held = Version(number, parse_stamp(since), None, msgspec.json.decode(trigger, type=dict[str, Any]), timezone, pinned)
    return JobState(
        job_id=job_id,
        state=State(state),
        until=parse_stamp(until) if until else None,
        reason=reason,
        by=by,
        changed_at=parse_stamp(changed_at) if changed_at else None,
        set_id=set_id,
        settled=parse_stamp(settled),
        spec_hash=spec_hash,
        version=held,
    )
