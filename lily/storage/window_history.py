"""Windows of runs that come back from their receipts: an older store would take them for due, and have them run again."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, or_, select, update

from lily.clock import parse_stamp, stamp
from lily.errors import LilyError
from lily.ledger import REBUILT, Version, WindowStatus
from lily.runs import Run, Status
from lily.storage import schema
from lily.storage.rows import NONSENSE
from lily.storage.store import Store
from lily.storage.window_ledgers import version_from
from lily.storage.windows import Windows

_w, _v, _s = schema.window.c, schema.trigger_version.c, schema.schedule.c


class WindowHistory:
    """For one store."""

    def __init__(self, store: Store) -> None:
        self._store, self._windows = store, Windows(store)

    def put_back(self, connection: Connection, job_id: str, runs: Sequence[Run], at: str) -> int:
        """Account for every window up to the newest of these runs that the ledger has not settled, inside a transaction that puts the runs
        back; gives how many. A window of which no run tells counts as skipped. None where the ledger says what none can have said."""
        spans = [span for run in runs if (span := _span(run)) is not None]
        settled = connection.execute(select(_s.settled).where(_s.job_id == job_id)).scalar()
        if not spans or settled is None:
            return 0
        newest = max(last for _, last, _ in spans)
        try:
            since = parse_stamp(settled)
            if newest <= since:
                return 0
            rows = [{"job_id": job_id, "recorded_at": at, **row} for row in self._rows(connection, job_id, since, newest, spans)]
        except NONSENSE:  # `lily schedule verify` says so; the runs come back all the same
            return 0
        if rows:
            connection.execute(self._store.upserts(schema.window).on_conflict_do_nothing(), rows)
        connection.execute(update(schema.schedule).where(_s.job_id == job_id).values(settled=stamp(newest)))
        return len(rows)

    def _rows(
        self, connection: Connection, job_id: str, since: datetime, newest: datetime, spans: Sequence[tuple[datetime, datetime, Run]]
    ) -> Iterator[dict[str, Any]]:
        fired = {last: run for _, last, run in spans if run.status is not Status.MISSED}
        missed = [span for span in spans if span[2].status is Status.MISSED]
        into: datetime | None = None
        left = 0  # windows that ran as one with the fired one after them
        for number, window in reversed(list(self._defined(connection, job_id, since, newest))):
            row = {"at": stamp(window.at), "version": number, "run_id": None, "into_at": None, "code": ""}
            report = next((run for first, last, run in missed if first <= window.at <= last), None)
            if window.excluded:
                row["status"] = WindowStatus.EXCLUDED.value
            elif window.at in fired:
                run = fired[window.at]
                into, left = window.at, run.trigger.get("coalesced", 0)
                row |= {"status": WindowStatus.FIRED.value, "run_id": run.run_id}
            elif left and into is not None:
                left -= 1
                row |= {"status": WindowStatus.COALESCED.value, "into_at": stamp(into)}
            elif report is not None:
                row |= {"status": WindowStatus.MISSED.value, "run_id": report.run_id, "code": report.error.code if report.error else ""}
            else:
                row |= {"status": WindowStatus.SKIPPED_PAUSED.value, "code": REBUILT}
            yield row

    def _defined(self, connection: Connection, job_id: str, since: datetime, newest: datetime) -> Iterator[tuple[int, Any]]:
        """The windows of every version, in order, each with the version's number."""
        open_or_late = or_(_v.until.is_(None), _v.until > stamp(since))
        wanted = select(schema.trigger_version).where(_v.job_id == job_id, open_or_late).order_by(_v.number)
        for version in map(version_from, connection.execute(wanted).all()):
            yield from ((version.number, window) for window in self._of(job_id, version, since, newest))

    def _of(self, job_id: str, version: Version, since: datetime, newest: datetime) -> Iterator[Any]:
        until = newest if version.until is None else min(version.until, newest)
        after = max(since, version.since)
        try:
            yield from self._windows.schedule(job_id, version).windows(after, until) if after < until else ()
        except LilyError:  # a trigger that can't be built here has no windows that could run again
            return


def _span(run: Run) -> tuple[datetime, datetime, Run] | None:
    """The first and last window of a scheduled run: one, or the stretch that it reports as missed."""
    last = run.trigger.get("scheduled_for")
    if not isinstance(last, str):
        return None
    first = run.trigger.get("first", last) if run.status is Status.MISSED else last
    return parse_stamp(first), parse_stamp(last), run
