"""Comparing the window ledger with the windows that every version of a trigger defines, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, groupby
from typing import Any

from lily.clock import stamp
from lily.errors import LilyError
from lily.ledger import Version, WindowStatus, is_condition
from lily.storage.rows import NONSENSE
from lily.storage.window_reads import Standing, WindowReads, WindowRow
from lily.text import one_line
from lily.triggers.schedule import Schedule, Window, schedule_of

MOST = 200  # differences that are named; all are counted
_LOOKED = (WindowStatus.NOT_MET, WindowStatus.CONDITION_ERROR)
_REPORTED = (WindowStatus.FIRED, WindowStatus.MISSED, WindowStatus.REFUSED)


@dataclass(slots=True)
class Report:
    """What was compared and what differs."""

    jobs: int = 0
    windows: int = 0
    rows: int = 0
    differences: list[dict[str, Any]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """How many differences there are, named or not."""
        return self.kinds.total()

    def add(self, job_id: str, at: datetime | None, kind: str, message: str) -> None:
        """One more difference."""
        self.kinds[kind] += 1
        if len(self.differences) < MOST:
            self.differences.append({"job_id": job_id, "at": stamp(at) if at else None, "kind": kind, "message": message})


def verify(reads: WindowReads, since: datetime, job_id: str | None = None, report: Report | None = None) -> Report:
    """Compare every window after `since` that the ledger has settled. A `report` that is given is added to."""
    report, pruned = report or Report(), reads.pruned_through()
    standings = iter(reads.standings(job_id).items())
    waiting = next(standings, None)
    # Both are in the order of the job ids; a job may have no rows.
    for of, rows in groupby(reads.stream(since, job_id), key=lambda row: row.job_id):
        while waiting is not None and waiting[0] < of:
            _Job(report, waiting[0], waiting[1], since, "").compare(iter(()))
            waiting = next(standings, None)
        if waiting is None or waiting[0] != of:
            continue  # it came after the versions were read
        _Job(report, of, waiting[1], since, pruned.get(of, "")).compare(rows)
        waiting = next(standings, None)
    for rest_id, standing in chain([waiting] if waiting else [], standings):
        _Job(report, rest_id, standing, since, "").compare(iter(()))
    return report


class _Job:
    def __init__(self, report: Report, job_id: str, standing: Standing, since: datetime, pruned: str) -> None:
        self._report, self._job_id, self._standing, self._since, self._pruned = report, job_id, standing, since, pruned
        self._into: set[datetime] = set()  # windows that coalesced ones name and that have not come yet

    def compare(self, rows: Iterator[WindowRow]) -> None:
        """Go through windows and rows side by side, both in order."""
        self._report.jobs += 1
        if self._standing.nonsense:
            said = f"the job's ledger says what no ledger can have said: {self._standing.nonsense}"
            self._add(None, "trigger_unreadable", said)
            return  # groupby passes over rows that nobody has read
        if (lost := self._standing.lost) is not None:
            self._add(None, "trigger_unreadable", f"its windows to come wait: {lost.message}: {lost.where}; {lost.hint}")
        defined = self._defined()
        window, row = next(defined, None), self._next(rows)
        while window is not None or row is not None:
            if row is None or (window is not None and window[0].at < row.at):
                assert window is not None
                self._add(window[0].at, "missing", "the trigger defines this window, and the ledger has no row for it")
                window = next(defined, None)
            elif window is None or row.at < window[0].at:
                self._add(row.at, "unexpected", f"the ledger has a row ({row.status}), and no version of the trigger defines this window")
                row = self._next(rows)
            else:
                self._same(window[0], window[1], row)
                window, row = next(defined, None), self._next(rows)
        for into in sorted(self._into):
            self._add(into, "not_coalesced_into", "coalesced windows name this one, and the ledger has no row for it")

    def _next(self, rows: Iterator[WindowRow]) -> WindowRow | None:
        """The next row up to where the ledger is settled; later ones came while this was looking."""
        while (row := next(rows, None)) is not None and row.nonsense:
            self._add(None, "trigger_unreadable", f"a row of the ledger says what no ledger can have said: {row.nonsense}")
        if row is None or row.at > self._standing.settled:
            for _ in rows:
                pass  # groupby wants them read
            return None
        self._report.rows += 1
        return row

    def _defined(self) -> Iterator[tuple[Window, Version]]:
        """The windows of every version, in order. A trigger that can't be built is a difference, and has none."""
        for version in self._standing.versions:
            until = self._standing.settled if version.until is None else min(version.until, self._standing.settled)
            after = max(self._since, version.since)
            if after >= until and version.until is not None:
                continue
            schedule = self._schedule(version)  # also of the one that holds and has no window yet: it may never have one
            for window in schedule.windows(after, until) if schedule and after < until else ():
                self._report.windows += 1
                yield window, version

    def _schedule(self, version: Version) -> Schedule | None:
        try:
            return schedule_of(version.trigger, version.timezone)
        except (LilyError, *NONSENSE) as error:
            said = error.message if isinstance(error, LilyError) else one_line(error)
            self._add(version.since, "trigger_unreadable", f"version {version.number} can't be computed here: {said}")
            return None

    def _same(self, window: Window, version: Version, row: WindowRow) -> None:
        self._into.discard(row.at)
        if row.version != version.number:
            self._add(row.at, "other_version", f"the row names trigger version {row.version}; version {version.number} defines this window")
        if window.excluded != (row.status is WindowStatus.EXCLUDED):
            says = "excludes" if window.excluded else "does not exclude"
            self._add(row.at, "exclusion", f"the row says {row.status}, and the trigger {says} this window")
        if row.status in _LOOKED and not is_condition(version.trigger):
            self._add(row.at, "no_condition", f"the row says {row.status}, and the trigger has no condition")
        if row.status is WindowStatus.COALESCED:
            self._coalesced(row)
        if row.status in _REPORTED:
            self._run(row)

    def _coalesced(self, row: WindowRow) -> None:
        if row.into is None or row.into <= row.at:
            self._add(row.at, "not_coalesced_into", "the row is coalesced and names no later window")
        else:
            self._into.add(row.into)

    def _run(self, row: WindowRow) -> None:
        if row.run_id is None:
            self._add(row.at, "no_run", f"the row is {row.status} and names no run")
        elif row.run_trigger is None:
            if row.run_id > self._pruned:
                self._add(row.at, "run_lost", f"the row names run {row.run_id}, which is not there and was not pruned")
        elif row.status is WindowStatus.FIRED and row.run_trigger.get("scheduled_for") != stamp(row.at):
            told = row.run_trigger.get("scheduled_for")
            self._add(row.at, "other_run", f"the row names run {row.run_id}, which was fired for {told or 'no window'}")

    def _add(self, at: datetime | None, kind: str, message: str) -> None:
        self._report.add(self._job_id, at, kind, message)
