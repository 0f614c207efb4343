"""What a review asks of the tables, some jobs at a time: each question ends at an index, however many runs and windows there are."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select

from lily.clock import stamp
from lily.dead_letters import fingerprint
from lily.known_findings import Known
from lily.review import RunFact, Severity
from lily.runs import TERMINAL, ErrorInfo, Status
from lily.storage import schema
from lily.storage.database import reading
from lily.storage.reviews import LastReview, known_from, last_of
from lily.storage.rows import NONSENSE, is_stamp
from lily.storage.statements import Asked
from lily.storage.store import Store
from lily.storage.window_reads import Standing, WindowReads, WindowRow, row_from, rows_of, standings_of

RUNS = 20  # of a job: the newest that ended by themselves ...
_PAGES = 25  # ... among so many times as many
_LAST = "~"  # after every run id
_OPEN = [status.value for status in Status if status not in TERMINAL]


class ReviewReads:
    """Questions about jobs by their ids. All calls block."""

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        r = schema.run.c
        # One short question a job: a single one over many jobs would read every run that they ever had.
        newest = select(r.run_id, r.status, r.started_at, r.ended_at, r.error).where(r.job_id == bindparam("job_id"))
        before = newest.where(r.run_id < bindparam("before"))
        self._newest = Asked(before.order_by(r.run_id.desc()).limit(RUNS))

    def newest_runs(self, job_ids: Sequence[str]) -> dict[str, list[RunFact]]:
        """The newest runs of these jobs that ended by themselves, newest first."""
        with reading(self._engine) as connection:
            return {job_id: _facts(self._judged(connection, job_id)) for job_id in job_ids}

    def _judged(self, connection: Connection, job_id: str) -> list[tuple[Any, ...]]:
        """Nearly always the first page has enough; a job that mostly waits, or misses its windows, is not looked through for ever."""
        found: list[tuple[Any, ...]] = []
        before = _LAST
        for _ in range(_PAGES):
            page = self._newest(connection, job_id=job_id, before=before)
            found += [row for row in page if row[1] in (Status.SUCCEEDED, Status.FAILED)]
            if len(page) < RUNS or len(found) >= RUNS:
                break
            before = page[-1][0]
        return found[:RUNS]

    def waiting(self) -> set[str]:
        """Jobs with runs that have not ended; these are few."""
        r = schema.run.c
        with reading(self._engine) as connection:
            return set(connection.execute(select(r.job_id).where(r.status.in_(_OPEN)).distinct()).scalars())

    def registered(self) -> list[str]:
        """Jobs of which a trigger holds, by id."""
        v = schema.trigger_version.c
        with reading(self._engine) as connection:
            return list(connection.execute(select(v.job_id).where(v.until.is_(None)).order_by(v.job_id)).scalars())

    def last(self) -> LastReview | None:
        """The newest review that was stored."""
        with reading(self._engine) as connection:
            return last_of(connection)

    def present(self, kind: str | None = None) -> dict[str, Known]:
        """The findings that are there, by id; of one kind, or all."""
        return {known.finding.id: known for known in self._findings(closed=False, kind=kind)}

    def closed(self) -> list[Known]:
        """The findings that are gone and still kept, the last to go first."""
        return sorted(self._findings(closed=True), key=lambda known: known.closed_at or "", reverse=True)

    def _findings(self, *, closed: bool, kind: str | None = None) -> list[Known]:
        f = schema.finding.c
        wanted = select(schema.finding).where(f.closed_at.is_not(None) if closed else f.closed_at.is_(None))
        if kind is not None:
            wanted = wanted.where(f.kind == kind)
        with reading(self._engine) as connection:
            return [known_from(row) for row in connection.execute(wanted.order_by(f.job_id, f.kind))]

    def find(self, kind: str, job_id: str) -> Known | None:
        """One finding, present or closed."""
        f = schema.finding.c
        with reading(self._engine) as connection:
            row = connection.execute(select(schema.finding).where(f.job_id == job_id, f.kind == kind)).one_or_none()
            return None if row is None else known_from(row)


def high_and_open(store: Store, now: datetime) -> int:
    """How many findings of high severity are there that nobody acknowledged."""
    f, at = schema.finding.c, stamp(now)
    wanted = select(f.acked_at, f.ack_until).where(f.closed_at.is_(None), f.severity == Severity.HIGH.value)
    with reading(store.engine) as connection:
        return sum(acked is None or (until is not None and until <= at) for acked, until in connection.execute(wanted))


def _why(error: str) -> ErrorInfo:
    try:
        return msgspec.json.decode(error, type=ErrorInfo)
    except NONSENSE:  # edited by hand: that it failed is known all the same
        return ErrorInfo(code="unreadable", message="")


def _facts(rows: Sequence[tuple[Any, ...]]) -> list[RunFact]:
    """The runs; of the newest one that failed, why: a fingerprint takes longer than all the rest."""
    made, why = [], ErrorInfo(code="", message="")
    for run_id, status, *times, error in rows:
        started_at, ended_at = (at if is_stamp(at) else None for at in times)
        if status == Status.FAILED and error and not why.code:
            why = _why(error)
            made.append(RunFact(run_id, status, started_at, ended_at, why.code, fingerprint(why)))
        else:
            made.append(RunFact(run_id, status, started_at, ended_at))
    return made


class SomeWindows(WindowReads):
    """The ledger of a few jobs, as `verify` asks for it: their windows alone are read, each job's from an instant on."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._ids: list[str] = []
        self._pruned = super().pruned_through()  # once for all: it has a row for each job
        w = schema.window.c
        wanted = rows_of().where(w.job_id == bindparam("job_id"), w.at > bindparam("since"))
        self._windows = Asked(wanted.order_by(w.at))

    def of(self, job_ids: Sequence[str]) -> "SomeWindows":
        """Have it speak of these jobs."""
        self._ids = sorted(job_ids)
        return self

    def standings(self, job_id: str | None = None) -> dict[str, Standing]:
        """Those of these jobs that the ledger knows, in the order of their ids."""
        with reading(self._engine) as connection:
            return standings_of(connection, self._ids)

    def stream(self, since: datetime, job_id: str | None = None) -> Iterator[WindowRow]:
        """Every row of these jobs after `since`, by job and window."""
        with reading(self._engine) as connection:
            for id in self._ids:
                for row in self._windows(connection, job_id=id, since=stamp(since)):
                    yield row_from(row)

    def pruned_through(self) -> dict[str, str]:
        """As it was when the review began."""
        return self._pruned
