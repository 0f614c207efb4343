"""Reading the window ledger: rows, versions, states and the supervisors that were there. All calls block, and change nothing."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select, tuple_

from lily.clock import parse_stamp, stamp
from lily.errors import LilyError, lost_spec
from lily.ledger import Control, Version, WindowStatus, control_from
from lily.runs import TERMINAL, decode_spec
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.reads import Reads
from lily.storage.rows import NONSENSE, PRUNED, why_not
from lily.storage.window_ledgers import NEVER, edited, version_from

_AT_ONCE = 500  # bound variables of one statement
_PAGE = 2000  # rows that a stream keeps in memory


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A row of the ledger, and what is left of the run that it names. `nonsense` says why it can't be read, after an edit by hand; the
    rest then says nothing."""

    job_id: str
    at: datetime
    status: WindowStatus
    version: int
    run_id: str | None
    into: datetime | None
    code: str
    recorded_at: str
    run_status: str | None = None  # None: it names no run, or the run was pruned
    run_trigger: dict[str, Any] | None = None
    nonsense: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """A supervisor that was there. `ended_at` None: it is there, or it ended without a word."""

    pid: int
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a job's ledger goes, and its versions, oldest first. `nonsense` says why they can't be read, after an edit by hand; the
    rest then says nothing. `lost` tells of the spec that its windows to come need, and that the store does not have."""

    settled: datetime
    versions: list[Version]
    nonsense: str = ""
    lost: LilyError | None = None


class WindowReads:
    """What can be asked of a store's ledger."""

    def __init__(self, store: Reads) -> None:
        self._engine = store.engine

    # -- one job ----------------------------------------------------------------------------------

    def standing(self, job_id: str) -> Standing | None:
        """The job's versions; None when the ledger never saw it. Raises LilyError where they can't be read."""
        with reading(self._engine) as connection:
            found = standings_of(connection, [job_id]).get(job_id)
        if found is not None and found.nonsense:
            raise edited(job_id, found.nonsense)
        return found

    def rows(self, job_id: str, low: datetime, high: datetime, *, limit: int = 1) -> list[WindowRow]:
        """Rows of windows with `low <= at < high`, oldest first."""
        w = schema.window.c
        wanted = rows_of().where(w.job_id == job_id, w.at >= stamp(low), w.at < stamp(high)).order_by(w.at).limit(limit)
        with reading(self._engine) as connection:
            return [_sound(row_from(row)) for row in connection.execute(wanted)]

    def last_row(self, job_id: str) -> WindowRow | None:
        """The row of the latest window."""
        w = schema.window.c
        with reading(self._engine) as connection:
            row = connection.execute(rows_of().where(w.job_id == job_id).order_by(w.at.desc()).limit(1)).one_or_none()
            return None if row is None else _sound(row_from(row))

    def controls(self, job_id: str) -> list[Control]:
        """Every change of the job's state by a person, oldest first."""
        c = schema.control
        with reading(self._engine) as connection:
            rows = connection.execute(select(c).where(c.c.job_id == job_id).order_by(c.c.sequence))
            try:
                return [control_from(row.at, row.state, row.until, row.reason, row.by, row.set_id) for row in rows]
            except NONSENSE as error:
                raise edited(job_id, why_not(error)) from error

    def run_statuses(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Status by run; runs that are not there are left out."""
        r = schema.run.c
        with reading(self._engine) as connection:
            found = connection.execute(select(r.run_id, r.status).where(r.run_id.in_(run_ids[:_AT_ONCE])))
            return {row[0]: row[1] for row in found}

    # -- supervisors ------------------------------------------------------------------------------

    def life_at(self, at: datetime) -> Life | None:
        """The last supervisor that began at `at` or before."""
        life = schema.life.c
        return self._life(lambda wanted: wanted.where(life.started_at <= stamp(at)).order_by(life.started_at.desc()))

    def life_after(self, at: datetime) -> Life | None:
        """The first supervisor that began after `at`."""
        life = schema.life.c
        return self._life(lambda wanted: wanted.where(life.started_at > stamp(at)).order_by(life.started_at))

    def _life(self, narrowed: Callable[[Select[Any]], Select[Any]]) -> Life | None:
        life = schema.life.c
        wanted = select(life.pid, life.started_at, life.ended_at).where(life.kind == "up")
        with reading(self._engine) as connection:
            row = connection.execute(narrowed(wanted).limit(1)).one_or_none()
        return None if row is None else Life(row[0], parse_stamp(row[1]), parse_stamp(row[2]) if row[2] else None)

    # -- all jobs ---------------------------------------------------------------------------------

    def last_fires(self) -> dict[str, WindowRow]:
        """The last window of each job that fired; one that can't be read says so."""
        return self._last(schema.window.alias("last"), fired=True)

    def last_windows(self) -> dict[str, WindowRow]:
        """The last window of each job that has a row; one that can't be read says so."""
        return self._last(schema.window.alias("last"), fired=False)

    def _last(self, last: Any, *, fired: bool) -> dict[str, WindowRow]:
        # For each job one look at the end of its windows, in one statement: grouping would read all of them.
        s, w = schema.schedule, schema.window
        newest = select(last.c.at).where(last.c.job_id == s.c.job_id)
        if fired:
            newest = newest.where(last.c.status == WindowStatus.FIRED.value)
        of = newest.order_by(last.c.at.desc()).limit(1).scalar_subquery()
        # Not as a join of the two, which SQLite begins with all windows.
        wanted = rows_of().where(tuple_(w.c.job_id, w.c.at).in_(select(s.c.job_id, of)))
        with reading(self._engine) as connection:
            return {row[0]: row_from(row) for row in connection.execute(wanted)}

    def waiting_runs(self, job_ids: Collection[str]) -> dict[str, list[str]]:
        """Runs of these jobs that have not ended, oldest first: each keeps the spec it was accepted with."""
        r, wanted = schema.run.c, set(job_ids)
        found: dict[str, list[str]] = {}
        open_ = select(r.job_id, r.run_id).where(r.status.not_in([status.value for status in TERMINAL])).order_by(r.run_id)
        with reading(self._engine) as connection:
            for job_id, run_id in connection.execute(open_):
                if job_id in wanted:
                    found.setdefault(job_id, []).append(run_id)
        return found

    def set_jobs(self, set_id: str) -> list[str]:
        """The jobs that one command changed, by the id it gave."""
        c = schema.control.c
        with reading(self._engine) as connection:
            return list(connection.execute(select(c.job_id).where(c.set_id == set_id).distinct().order_by(c.job_id)).scalars())

    # -- the whole ledger -------------------------------------------------------------------------

    def standings(self, job_id: str | None = None) -> dict[str, Standing]:
        """Every job of the ledger, or one, by id."""
        with reading(self._engine) as connection:
            return standings_of(connection, None if job_id is None else [job_id])

    def stream(self, since: datetime, job_id: str | None = None) -> Iterator[WindowRow]:
        """Every row after `since`, by job and window, a page at a time."""
        w = schema.window.c
        wanted = rows_of().where(w.at > stamp(since)).order_by(w.job_id, w.at)
        if job_id is not None:
            wanted = wanted.where(w.job_id == job_id)
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(wanted):
                yield row_from(row)

    def pruned_through(self) -> dict[str, str]:
        """By job the newest run that was pruned: older ones may be gone rightly."""
        m = schema.meta.c
        with reading(self._engine) as connection:
            rows = connection.execute(select(m.key, m.value).where(m.key.startswith(PRUNED, autoescape=True)))
            return {row[0].removeprefix(PRUNED): row[1] for row in rows}


def rows_of() -> Select[Any]:
    """Rows of windows with what is left of their runs, as `row_from` reads them."""
    w, r = schema.window, schema.run
    return select(*w.c, r.c.status, r.c.trigger).select_from(w.outerjoin(r, r.c.run_id == w.c.run_id))


def row_from(row: Any) -> WindowRow:
    """A row of the ledger from the database's. One that was edited by hand hides no other."""
    try:
        return _read(row)
    except NONSENSE as error:
        return WindowRow(row[0], NEVER, WindowStatus.MISSED, 0, None, None, "", "", nonsense=f"window {row[1]}: {why_not(error)}")


def _sound(row: WindowRow) -> WindowRow:
    if row.nonsense:
        raise edited(row.job_id, row.nonsense)
    return row


def _read(row: Any) -> WindowRow:
    job_id, at, status, version, run_id, into, code, recorded_at, run_status, trigger = row
    return WindowRow(
        job_id=job_id,
        at=parse_stamp(at),
        status=WindowStatus(status),
        version=version,
        run_id=run_id,
        into=parse_stamp(into) if into else None,
        code=code,
        recorded_at=recorded_at,
        run_status=run_status,
        run_trigger=_trigger(trigger) if trigger else None,
    )


def _trigger(text: str) -> dict[str, Any]:
    """Of a run. One that was edited into what is none is said of the run, and not of its window."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except NONSENSE:
        return {}


def standings_of(connection: Connection, job_ids: Collection[str] | None) -> dict[str, Standing]:
    """Those of these jobs that the ledger knows, or all, by id in the order of the ids. One that was edited by hand hides no other."""
    s, v, c = schema.schedule.c, schema.trigger_version.c, schema.control.c
    named = select(schema.schedule, schema.spec.c.body).outerjoin(schema.spec, schema.spec.c.spec_hash == s.spec_hash)
    jobs, versions, controls = named.order_by(s.job_id), select(schema.trigger_version), select(schema.control)
    if job_ids is not None:
        jobs, versions, controls = (
            jobs.where(s.job_id.in_(job_ids)),
            versions.where(v.job_id.in_(job_ids)),
            controls.where(c.job_id.in_(job_ids)),
        )
    rows, of, spoilt = connection.execute(jobs).all(), defaultdict[str, list[Any]](list), dict[str, str]()
    for row in connection.execute(versions.order_by(v.job_id, v.number)):
        of[row.job_id].append(row)
    for row in connection.execute(controls):
        try:
            control_from(row.at, row.state, row.until, row.reason, row.by, row.set_id)
        except NONSENSE as error:
            spoilt[row.job_id] = why_not(error)
    return {row.job_id: _standing(row, of[row.job_id], spoilt.get(row.job_id, "")) for row in rows}


def _lost(row: Any) -> LilyError | None:
    if row.spec_hash is None:  # that of its last trigger is taken then
        return None
    try:
        if row.body is not None:
            decode_spec(row.body)
    except NONSENSE as error:
        return lost_spec(row.spec_hash, why_not(error))
    return lost_spec(row.spec_hash) if row.body is None else None


def _standing(row: Any, versions: Sequence[Any], spoilt: str) -> Standing:
    """`spoilt` says why a change of its state can't be read; nobody fires its windows then, as where the state itself can't be."""
    try:
        if not spoilt:
            control_from(row.changed_at or row.settled, row.state, row.until, row.reason, row.by, row.set_id)
            known = [version_from(each) for each in versions]
            goes_on = any(version.until is None for version in known)
            return Standing(parse_stamp(row.settled), known, lost=_lost(row) if goes_on else None)
    except NONSENSE as error:
        spoilt = why_not(error)
    return Standing(NEVER, [], nonsense=spoilt)
