"""The window ledger's rules: what becomes of every window of a job, as one pure function.

A window is a job and a nominal instant. `settle` is asked at start, on a fire, on a missed fire and when the clock jumped, so
catch-up, grace, coalescing, pauses and overlap have one owner. Nothing here reads the time, the store or a calendar.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from lily.clock import parse_stamp
from lily.time_text import seconds_of

TICK = timedelta(microseconds=1)
REBUILT = "rebuilt"  # the code of a skipped window that was settled when history was rebuilt, and of which no receipt tells
REMOVED = "removed"  # the code of a missed window whose job had no schedule any more when it would have run
REMOVED_WHY = "the job's file was removed, or its trigger became manual, before they could run"  # as their report has it
AT_ONCE = 100_000  # windows that one settlement decides at most: more than a day of seconds; a longer downtime takes several


class WindowStatus(StrEnum):
    """What became of a window. Only `fired` has a run that works; `missed` names the one run that reports its batch.

    The last two are those of a condition: somebody looked, and it was not so, or the look came to no result.
    """

    FIRED = "fired"
    MISSED = "missed"
    COALESCED = "coalesced"
    SKIPPED_OVERLAP = "skipped_overlap"
    SKIPPED_PAUSED = "skipped_paused"
    REFUSED = "refused"
    EXCLUDED = "excluded"
    NOT_MET = "not_met"
    CONDITION_ERROR = "condition_error"


class State(StrEnum):
    """How a job's schedule stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class Window(Protocol):
    """A nominal instant, and whether the trigger's `exclude` names it."""

    @property
    def at(self) -> datetime: ...
    @property
    def excluded(self) -> bool: ...


class Schedule(Protocol):
    """The windows of one version of a trigger; `lily.triggers.schedule.Schedule` is one."""

    def windows(self, after: datetime, until: datetime) -> Iterator[Any]: ...
    def fire_at(self, job_id: str, at: datetime) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Version:
    """A trigger while it holds: windows with `since < at <= until` are its own. `until` is None for the one that holds now."""

    number: int
    since: datetime
    until: datetime | None
    trigger: dict[str, Any]
    timezone: str | None
    spec_hash: str


@dataclass(frozen=True, slots=True)
class Control:
    """From `at` on the job is in `state`; a state with `until` ends then and the job is active again."""

    at: datetime
    state: State
    until: datetime | None = None
    reason: str = ""
    by: str = ""
    set_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Windows that were due up to `until` could not be claimed then."""

    until: datetime
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class JobLedger:
    """What `settle` needs of one job: every window up to `settled` has its row."""

    job_id: str
    settled: datetime
    versions: Sequence[Version]  # oldest first; those that may hold windows after `settled`
    controls: Sequence[Control] = ()  # oldest first; from the one that held at `settled` on
    active: Sequence[str] = ()  # runs that are running, wait for a retry or for an approval
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One window's row. `into` is the window that ran in its place; `version` the trigger that defines it."""

    at: datetime
    status: WindowStatus
    version: Version
    due: datetime
    into: datetime | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settlement decides. `through` is how far every window has its row; `more` says that windows are left to decide.

    `look` is the window of a condition that can't be decided before somebody looked; it and those after it are left.
    """

    rows: list[Row] = field(default_factory=list)
    through: datetime | None = None
    more: bool = False
    cancels: list[str] = field(default_factory=list)  # runs that a fire with `overlap: cancel_previous` ends
    look: Row | None = None

    @property
    def fired(self) -> list[Row]:
        """The windows that run, in order."""
        return [row for row in self.rows if row.status is WindowStatus.FIRED]

    def missed_batches(self) -> list[list[Row]]:
        """Missed windows that share a report: in order, by what kept them from running."""
        batches: dict[tuple[int, str], list[Row]] = {}
        for row in self.rows:
            if row.status is WindowStatus.MISSED:
                batches.setdefault((row.version.number, row.code), []).append(row)
        return list(batches.values())


def grace_seconds(trigger: dict[str, Any]) -> float:
    """How late a window may still run: the misfire grace, at least a second; where windows are caught up, the catch-up window."""
    if trigger.get("catch_up", "none") == "none":
        return max(1.0, float(trigger.get("misfire_grace_seconds", 30.0)))
    return seconds_of(trigger.get("catch_up_window", "24h"))


def held_at(controls: Sequence[Control], at: datetime) -> Control | None:
    """What keeps a job from its schedule at an instant, if anything does: a pause, or that it is disabled."""
    # In the order in which they were made: the clock may have stepped back between two.
    return holding(next((control for control in reversed(controls) if control.at <= at), None), at)


def held_now(controls: Sequence[Control], now: datetime) -> Control | None:
    """The same for an instant that has come: what was said last holds then, also where the clock was set back since."""
    return holding(controls[-1] if controls else None, now)


def holding(control: Control | None, at: datetime) -> Control | None:
    """This change of state, unless it keeps nothing from running, or is over by then."""
    over = control is None or control.state is State.ACTIVE or (control.until is not None and control.until <= at)
    return None if over else control


def paused_at(controls: Sequence[Control], at: datetime) -> Control | None:
    """The pause that holds at an instant, if one does. A disabled job needs none: its trigger's version has ended."""
    found = held_at(controls, at)
    return found if found is not None and found.state is State.PAUSED else None


Judge = Callable[[Row], tuple[WindowStatus, str] | None]


def nobody_looked(row: Row) -> tuple[WindowStatus, str] | None:
    """Of no condition it is known whether it was so."""
    return None


def settle(
    job: JobLedger,
    now: datetime,
    schedule_of: Callable[[Version], Schedule],
    limit: int = AT_ONCE,
    judge: Judge = nobody_looked,
) -> Settlement:
    """Decide every window of the job that is due by `now` and has no row. The same input gives the same rows in the same order.

    `judge` gives status and code of the window of a condition that is to be decided by a look; None while nobody looked.
    """
    due, through = _due(job, now, schedule_of, limit + 1)
    judged = [_judged(job, row, now, excluded=row.status is WindowStatus.EXCLUDED) for row in due]
    more = len(due) > limit
    if more:
        # Windows that may still run are decided together, however many could not be caught up before them.
        del judged[next((n for n, row in enumerate(judged) if row.status is WindowStatus.FIRED), limit) or limit :]
        through = judged[-1].at
    rows = _limited(judged)
    cancels = _overlapped(rows, job.active)  # before coalescing: a coalesced window names one that ran, not one that was skipped
    return _looked_at(Settlement(_coalesced(rows), through, more, cancels), judge)


def is_condition(trigger: dict[str, Any]) -> bool:
    """Whether the windows of a trigger are looks."""
    return trigger.get("type") == "condition"


def _overlapped(rows: list[Row], active: Sequence[str]) -> list[str]:
    """Skip what may not run beside the active runs; gives those that end in its place."""
    firing = [n for n, row in enumerate(rows) if row.status is WindowStatus.FIRED]
    if not firing or not active:
        return []
    overlap = rows[firing[-1]].version.trigger.get("overlap", "skip")
    if overlap == "skip":
        for n in firing:
            rows[n] = _with(rows[n], WindowStatus.SKIPPED_OVERLAP, code=",".join(active[:3]))
    return list(active) if overlap == "cancel_previous" else []


def _looked_at(found: Settlement, judge: Judge) -> Settlement:
    """The settlement with what a look decides. There is one at most: what was can't be looked at later."""
    rows = found.rows
    n = next((n for n, row in enumerate(rows) if row.status is WindowStatus.FIRED and is_condition(row.version.trigger)), None)
    if n is None:
        return found
    decided = judge(rows[n])
    if decided is None:
        look = rows[n]
        first = _without_names(rows, n)
        kept = rows[:first]
        fires = any(row.status is WindowStatus.FIRED for row in kept)
        return Settlement(kept, rows[first].at - TICK, False, found.cancels if fires else [], look)
    rows[n] = _with(rows[n], decided[0], code=decided[1])
    return found if found.fired else replace(found, cancels=[])


def _without_names(rows: Sequence[Row], first: int) -> int:
    """How many of the rows before `first` may be kept alone: those that name a window which has no row yet wait with it."""
    while True:
        named = next((m for m, row in enumerate(rows[:first]) if row.into is not None and row.into >= rows[first].at), first)
        if named == first:
            return first
        first = named


def _due(job: JobLedger, now: datetime, schedule_of: Callable[[Version], Schedule], limit: int) -> tuple[list[Row], datetime]:
    """The windows to decide, and how far all are decided once these are: up to `now`, or to the first that is still to come."""
    due: list[Row] = []
    through = max(now, job.settled)
    for version in job.versions:
        schedule = schedule_of(version)
        until = now if version.until is None else min(version.until, now)
        for window in schedule.windows(max(version.since, job.settled), until):
            fires = schedule.fire_at(job.job_id, window.at)
            if version.until is not None:
                fires = min(fires, version.until)  # nobody waits for what an edit or a disable has ended
            if fires > now:
                return due, min(through, window.at - TICK)
            status = WindowStatus.EXCLUDED if window.excluded else WindowStatus.FIRED
            due.append(Row(window.at, status, version, fires))
            if len(due) >= limit:
                return due, window.at
    return due, through


def _judged(job: JobLedger, row: Row, now: datetime, *, excluded: bool) -> Row:
    if excluded:
        return row
    if paused_at(job.controls, row.at) is not None:
        return _with(row, WindowStatus.SKIPPED_PAUSED)
    if job.failure is not None and row.due <= job.failure.until:
        return _with(row, WindowStatus.MISSED, code=job.failure.code)
    if (now - row.due).total_seconds() > grace_seconds(row.version.trigger):
        return _with(row, WindowStatus.MISSED)
    # It came before somebody held or removed the job, and its run would come after: nothing is started against their word.
    if held_now(job.controls, now) is not None:
        return _with(row, WindowStatus.SKIPPED_PAUSED)
    return _with(row, WindowStatus.MISSED, code=REMOVED) if _is_removed(job, now) else row


def _is_removed(job: JobLedger, at: datetime) -> bool:
    """Whether the job has no schedule any more. One that was edited has a next version, one that is disabled a control that holds."""
    until = job.versions[-1].until
    return until is not None and until <= at


def _limited(rows: list[Row]) -> list[Row]:
    """With `catch_up: all`, only the newest `catch_up_limit` run."""
    firing = [n for n, row in enumerate(rows) if row.status is WindowStatus.FIRED and _mode(row) == "all"]
    if firing:
        most = int(rows[firing[-1]].version.trigger.get("catch_up_limit", 100))
        for n in firing[: max(0, len(firing) - most)]:
            rows[n] = _with(rows[n], WindowStatus.MISSED, code="catch_up_limit")
    return rows


def _coalesced(rows: list[Row]) -> list[Row]:
    """Of several windows that may run now, the last one does, unless each is to be caught up. Looks stand only for looks."""
    timed, looks = list[int](), list[int]()
    for n, row in enumerate(rows):
        if row.status is WindowStatus.FIRED:
            (looks if is_condition(row.version.trigger) else timed).append(n)
    if timed and _mode(rows[timed[-1]]) == "all":
        timed = []
    for some in (timed, looks):
        for n in some[:-1]:
            rows[n] = _with(rows[n], WindowStatus.COALESCED, into=rows[some[-1]].at)
    return rows


def _mode(row: Row) -> str:
    return str(row.version.trigger.get("catch_up", "none"))


def _with(row: Row, status: WindowStatus, *, into: datetime | None = None, code: str = "") -> Row:
    return Row(row.at, status, row.version, row.due, into, code)


def control_from(at: str, state: str, until: str | None, reason: str, by: str, set_id: str | None) -> Control:
    """A control from its row."""
    return Control(parse_stamp(at), State(state), parse_stamp(until) if until else None, reason, by, set_id)


def misfire_seconds(trigger: dict[str, Any]) -> int:
    """APScheduler's misfire grace for a job with this trigger: whole seconds, at least one."""
    return max(1, math.ceil(grace_seconds(trigger)))
