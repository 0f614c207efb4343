"""Why a job ran or did not run at a time: what its ledger says, and where the ledger says nothing, what the calendar says."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from lily.clock import parse_stamp, stamp
from lily.errors import Code, LilyError
from lily.ledger import REBUILT, REMOVED, TICK, Control, State, Version, WindowStatus, grace_seconds, held_at, held_now, holding, paused_at
from lily.operations.looking import LOOKED, evaluation_view, looked_lines
from lily.operations.times import coming_due, jitter_of, local_of, running
from lily.policies import scheduled
from lily.spec_index import SpecEntry, SpecIndex
from lily.storage.looks import Look, LookReads
from lily.storage.store import Store
from lily.storage.window_reads import Standing, WindowReads, WindowRow
from lily.summary import duration
from lily.text import counted
from lily.triggers.schedule import Schedule, Window, schedule_of

_MINUTE = timedelta(minutes=1)
_AHEAD = timedelta(seconds=2)  # from here on the ledger's end lies after now because the clock was set back
# How far back the last window before now is looked for, near first.
_BACK = (timedelta(hours=1), timedelta(days=40), timedelta(days=4000))


@dataclass(slots=True)
class _Case:
    """What is known when the question is answered."""

    job_id: str
    entry: SpecEntry | None
    reads: WindowReads
    looks: LookReads
    standing: Standing
    controls: list[Control]
    now: datetime
    owner: str | None  # who owns the workspace now, in words

    def schedule(self, version: Version) -> Schedule:
        return schedule_of(version.trigger, version.timezone)

    @property
    def version(self) -> Version:
        return self.standing.versions[-1]

    def holding(self, at: datetime) -> Version | None:
        """The version whose windows include `at`."""
        for version in self.standing.versions:
            if version.since < at and (version.until is None or at <= version.until):
                return version
        return None

    def control_at(self, at: datetime) -> Control | None:
        """The last change of state before `at`."""
        return next((control for control in reversed(self.controls) if control.at <= at), None)

    def held_at(self, at: datetime) -> Control | None:
        """What keeps the job from its schedule at an instant, if anything does."""
        return holding(self.control_at(at), at)

    @property
    def held(self) -> Control | None:
        """What keeps it from that now."""
        return held_now(self.controls, self.now)


class _Coming(NamedTuple):
    """A window to come, and when its jitter lets it run."""

    at: datetime
    due: datetime


@dataclass(slots=True)
class _Answer:
    outcome: str
    because: list[str]
    row: WindowRow | None = None
    control: Control | None = None
    runs: list[dict[str, Any]] | None = None
    next: _Coming | None = None
    look: Look | None = None


def why(index: SpecIndex, store: Store | None, job_id: str, at: datetime | None, now: datetime, owner: str | None) -> dict[str, Any]:
    """The answer for the window at `at` (to the minute, or to the second), or for the latest one. Raises `job_not_found`."""
    entry = index.find(job_id)
    reads = WindowReads(store) if store is not None else None
    standing = reads.standing(job_id) if reads is not None else None
    if store is None or reads is None or standing is None or not standing.versions:
        return _view(job_id, entry.timezone if entry else None, at, _unknown(index, entry, job_id, reads, owner, now))
    case = _Case(job_id, entry, reads, LookReads(store), standing, reads.controls(job_id), now, owner)
    if at is None:
        row, at = _latest(case)
        if at is None:
            return _view(job_id, case.version.timezone, None, _none_yet(case))
        return _view(job_id, case.version.timezone, at, _held_now(case, _of_row(case, row) if row is not None else _without_row(case, at)))
    row = _row_at(case, at)
    if row is not None:
        return _view(job_id, case.version.timezone, row.at, _of_row(case, row))
    return _view(job_id, case.version.timezone, at, _without_row(case, at))


def _view(job_id: str, timezone: str | None, at: datetime | None, answer: _Answer) -> dict[str, Any]:
    from lily.triggers.zones import zone_of

    row, control = answer.row, answer.control
    return {
        "job_id": job_id,
        "timezone": timezone or "UTC",
        "at": stamp(at) if at else None,
        "local": at.astimezone(zone_of(timezone)).isoformat() if at else None,
        "outcome": answer.outcome,
        "because": answer.because,
        "row": None
        if row is None
        else {
            "at": stamp(row.at),
            "status": row.status.value,
            "version": row.version,
            "run_id": row.run_id,
            "into_at": stamp(row.into) if row.into else None,
            "code": row.code,
            "recorded_at": row.recorded_at,
        },
        "control": None
        if control is None
        else {
            "at": stamp(control.at),
            "state": control.state.value,
            "until": stamp(control.until) if control.until else None,
            "reason": control.reason,
            "by": control.by,
            "set_id": control.set_id,
        },
        "runs": answer.runs or [],
        "next": stamp(answer.next.at) if answer.next else None,
        "next_due": stamp(answer.next.due) if answer.next else None,
        "evaluation": None if answer.look is None else evaluation_view(answer.look.evaluation),
    }


# -- a job that the ledger does not know -----------------------------------------------------------


def _unknown(
    index: SpecIndex, entry: SpecEntry | None, job_id: str, reads: WindowReads | None, owner: str | None, now: datetime
) -> _Answer:
    if entry is None:
        try:
            index.load(job_id)
        except LilyError as error:
            if error.code is Code.JOB_NOT_FOUND:
                raise
            return _Answer("invalid_spec", [f"its file is not valid, so it was never registered: {error.message}", error.where])
    if entry is None or not scheduled(entry.trigger):
        return _Answer("manual", ["its trigger is manual: it has no windows and runs when somebody says so"])
    coming = _after(schedule_of(entry.trigger, entry.timezone), job_id, now)
    if owner is not None:
        said = f"{owner} is up and has not registered it; its log says why, and so does `lily jobs validate {job_id}`"
        return _Answer("not_registered", [said], next=coming)
    if reads is None or reads.life_at(now) is None:
        return _Answer("not_registered", ["no supervisor ever ran here; `lily up` starts one"], next=coming)
    said = "no supervisor has seen it: its file came after the last one ended; `lily up` starts one"
    return _Answer("not_registered", [said], next=coming)


# -- which window ----------------------------------------------------------------------------------


def _row_at(case: _Case, at: datetime) -> WindowRow | None:
    """The row of the window that a person means: any of the minute, unless they give seconds and the minute has several."""
    exact = case.reads.rows(case.job_id, at, at + TICK)
    if exact:
        return exact[0]
    low, span = at.replace(second=0, microsecond=0), _MINUTE
    schedule = case.schedule(case.holding(at) or case.version)
    if at.second and len(list(islice(schedule.windows(low - TICK, low + span - TICK), 2))) == 2:
        low, span = at.replace(microsecond=0), timedelta(seconds=1)
    found = case.reads.rows(case.job_id, low, low + span)
    return found[0] if found else None


def _latest(case: _Case) -> tuple[WindowRow | None, datetime | None]:
    """The latest window up to now: one that fell due and has no row yet, else the last row."""
    version = case.version
    after = max(version.since, case.standing.settled)
    until = case.now if version.until is None else min(version.until, case.now)
    for span in _BACK if after < until else ():
        found = deque(case.schedule(version).windows(max(after, until - span), until), maxlen=1)
        if found:
            return None, found[0].at
    row = case.reads.last_row(case.job_id)
    return (row, row.at) if row is not None else (None, None)


def _none_yet(case: _Case) -> _Answer:
    # The version of after a disabling with an end is there before it holds.
    since = max((version.since for version in case.standing.versions if version.since <= case.now), default=case.version.since)
    told = [f"no window has come since it was registered, {_when(since)}"]
    control = case.held
    if control is not None:
        told.append(_control_text(control))
    told += _ahead(case) + _gone(case)
    return _Answer("no_window_yet", told, control=control, next=_next(case))


def _held_now(case: _Case, answer: _Answer) -> _Answer:
    """Who asks for the latest window also wants to know why none has come since."""
    control = case.held
    if control is not None and control != answer.control:
        answer.because.append(f"now it is {_control_text(control)}")
        answer.control = answer.control or control
    answer.because += _ahead(case) + _gone(case)
    return answer


def _ahead(case: _Case) -> list[str]:
    """That windows to come were decided by a clock that has been set back since."""
    if case.standing.settled <= case.now + _AHEAD:
        return []
    return [f"the clock was set back since: windows up to {_when(case.standing.settled)} were decided by then and do not run again"]


def _gone(case: _Case) -> list[str]:
    """That no window comes any more, for a job whose file was removed."""
    until, held = case.version.until, case.held
    if case.entry is not None or until is None or (held is not None and held.state is State.DISABLED):
        return []
    return [f"its file is gone since {_when(until)}: no window comes any more"]


def _next(case: _Case) -> _Coming | None:
    """The next window that will run, as the job stands now: it may be one whose jitter is still running."""
    version, control = case.version, case.held
    begin, after = max(case.standing.settled, version.since), case.now
    if control is not None and control.state is State.PAUSED:
        if control.until is None:
            return None
        after = max(after, control.until - timedelta(microseconds=1))
    if version.until is not None:
        return None
    coming = coming_due(case.schedule(version), case.job_id, max(begin, after - jitter_of(version.trigger)), after)
    return next((_Coming(at, due) for at, due in coming if paused_at(case.controls, at) is None), None)


def _after(schedule: Schedule, job_id: str, at: datetime) -> _Coming | None:
    """The first window after a time that `exclude` does not name."""
    found = next(running(schedule, at, 1), None)
    return None if found is None else _Coming(found, schedule.fire_at(job_id, found))


# -- a window with a row ---------------------------------------------------------------------------


def _of_row(case: _Case, row: WindowRow) -> _Answer:
    runs = [{"run_id": row.run_id, "status": row.run_status}] if row.run_id else []
    answer = _Answer(_OUTCOMES.get(row.status, row.status.value), [], row, runs=runs)
    match row.status:
        case WindowStatus.FIRED:
            answer.because = _ran(row)
        case WindowStatus.NOT_MET | WindowStatus.CONDITION_ERROR:
            pass  # what the look found says it
        case WindowStatus.MISSED:
            answer.because = _missed(case, row)
        case WindowStatus.COALESCED:
            into = case.reads.rows(case.job_id, row.into, row.into + timedelta(microseconds=1)) if row.into else []
            answer.because = [f"several windows were due at once, and only the last of them ran: {_when(row.into or row.at)}"]
            answer.runs = [{"run_id": each.run_id, "status": each.run_status} for each in into if each.run_id]
        case WindowStatus.SKIPPED_OVERLAP:
            ids = row.code.split(",") if row.code else []
            found = case.reads.run_statuses(ids)
            answer.because = [f"a run before it was still active ({', '.join(ids)}), and the trigger says overlap: skip"]
            answer.runs = [{"run_id": run_id, "status": found.get(run_id)} for run_id in ids]
        case WindowStatus.SKIPPED_PAUSED:
            answer.control = paused_at(case.controls, row.at)
            if answer.control is None and row.code != REBUILT:  # it came before the job was held, and was decided after
                answer.control = held_at(case.controls, parse_stamp(row.recorded_at))
            answer.because = [_control_text(answer.control) if answer.control else _uncontrolled(row)]
        case WindowStatus.REFUSED:
            answer.because = _refused(row)
        case WindowStatus.EXCLUDED:
            answer.because = ["the trigger's `exclude` names this time"]
    answer.next = _next(case)
    if row.status in LOOKED:
        answer.look = case.looks.of_window(case.job_id, row.at)
        answer.because += looked_lines(row.status, row.code, answer.look)
    return answer


def _uncontrolled(row: WindowRow) -> str:
    if row.code == REBUILT:
        return "history was rebuilt from receipts, and none tells of this time: it was settled as skipped, so that it does not run again"
    return "it was paused"


_OUTCOMES = {WindowStatus.FIRED: "ran"}


def _ran(row: WindowRow) -> list[str]:
    late = (parse_stamp(row.recorded_at) - row.at).total_seconds()
    told = [f"it fired {duration(late)} after its time; its run is {row.run_status or 'pruned'}"]
    coalesced = (row.run_trigger or {}).get("coalesced")
    return [*told, f"it stands for {counted(coalesced, 'earlier window')} too"] if coalesced else told


def _refused(row: WindowRow) -> list[str]:
    told = [f"the queue did not take its run: {row.code or 'no reason is recorded'}"]
    span = row.run_trigger or {}
    if span.get("reason"):
        told.append(f"{span['reason']}; run {row.run_id} reports this stretch of windows, which began with {_when_text(span['first'])}")
    return told


def _missed(case: _Case, row: WindowRow) -> list[str]:
    version = next((each for each in case.standing.versions if each.number == row.version), case.version)
    if row.code == "catch_up_limit":
        told = [f"more windows were to be caught up than catch_up_limit ({version.trigger.get('catch_up_limit', 100)}) allows"]
    elif row.code == REMOVED:
        told = ["the job's file was removed, or its trigger became manual, before it could run"]
    elif row.code:
        told = [f"its run could not be stored when it was due: {row.code}"]
    else:
        told = [_absence(case, row, version)]
    span = row.run_trigger or {}
    if span.get("windows", 1) > 1:
        told.append(
            f"one run reports {counted(span['windows'], 'missed window')}, from {_when_text(span['first'])} to {_when_text(span['last'])}"
        )
    return told


def _absence(case: _Case, row: WindowRow, version: Version) -> str:
    """Who was not there, or came too late."""
    before, after = case.reads.life_at(row.at), case.reads.life_after(row.at)
    then = f"the next one began {_when(after.started_at)} (pid {after.pid})" if after else "none has begun since"
    if before is None:
        return f"no supervisor had run yet; {then}"
    if before.ended_at is not None and before.ended_at <= row.at:
        return f"no supervisor was there: the one before (pid {before.pid}) ended {_when(before.ended_at)}, {then}"
    if after is not None and after.started_at <= parse_stamp(row.recorded_at):  # else the one that was there came to it, if too late
        if before.ended_at is None:
            began = f"the supervisor that began {_when(before.started_at)} (pid {before.pid}) was killed, or the machine went down; "
            return began + then
        return f"the supervisor that was there (pid {before.pid}) ended {_when(before.ended_at)} and had not come to it; {then}"
    late = duration((parse_stamp(row.recorded_at) - row.at).total_seconds())
    grace = grace_seconds(version.trigger)
    allowed = f"{grace:g} s {'is' if grace == 1 else 'are'} allowed"
    return f"a supervisor was there (pid {before.pid}) and came to it {late} too late ({allowed}): the machine slept, or the clock was set"


# -- a time without a row --------------------------------------------------------------------------


def _without_row(case: _Case, at: datetime) -> _Answer:
    version = case.holding(at)
    if version is None:
        return _no_version(case, at)
    schedule = case.schedule(version)
    reason = schedule.why_not(at)
    if reason is not None:
        local = local_of(schedule, at)[: 19 if at.second else 16].replace("T", " ")
        shown = f"{local} is no time of its {version.trigger['type']} trigger: {reason}"
        told = [shown, *([f"that trigger (version {version.number}) held until {_when(version.until)}"] if version.until else [])]
        return _Answer("not_due", told, next=_after(schedule, case.job_id, at))
    window = schedule.window_in(at)
    assert window is not None
    if window.at <= version.since:  # asked to the minute, and the trigger holds only from later in it
        early = f"its window in this minute, {_when(window.at)}, came before its trigger held: since {_when(version.since)}"
        return _Answer("not_registered", [early], next=_next(case))
    due = schedule.fire_at(case.job_id, window.at)
    if version.until is not None:
        due = min(due, version.until)
    if due > case.now:
        return _to_come(case, window, due)
    if window.at > case.standing.settled:
        return _undecided(case, window)
    said = "the trigger defines a window here, and the ledger has no row for it; `lily schedule verify` checks all of them"
    return _Answer("lost", [said])


def _no_version(case: _Case, at: datetime) -> _Answer:
    control, first = case.held_at(at), case.standing.versions[0]
    if control is not None and control.state is State.DISABLED:
        return _Answer("disabled", [_control_text(control)], control=control, next=_next(case))
    if at <= first.since:
        return _Answer("not_registered", [f"it was registered only {_when(first.since)}"], next=_next(case))
    if case.entry is None:
        return _Answer("no_schedule", ["its file was gone then, and is still"], control=control)
    return _Answer("no_schedule", ["it had no schedule then: its file was gone, or its trigger manual"], control=control, next=_next(case))


def _held(case: _Case, window: Window, due: datetime) -> tuple[str, Control | None]:
    """What keeps a window without a row from running as things stand, and who said so; empty when nothing does."""
    if window.excluded:
        return "the trigger's `exclude` names this time", None
    control = paused_at(case.controls, window.at) or (held_now(case.controls, due) if due > case.now else None)
    return (_control_text(control) if control is not None else ""), control


def _to_come(case: _Case, window: Window, due: datetime) -> _Answer:
    held, control = _held(case, window, due)
    if held:
        return _Answer("to_come", [f"it is to come, and would not run: {held}"], control=control, next=_next(case))
    told = "it is to come" + (f", with its jitter at {_when(due)}" if due != window.at else "")
    if case.owner is None:
        told += "; no supervisor is up, `lily up` starts one"
    return _Answer("to_come", [told], next=_next(case))


def _undecided(case: _Case, window: Window) -> _Answer:
    if case.owner is not None:
        return _Answer("undecided", [f"{case.owner} has not decided it yet; ask again in a moment"], next=_next(case))
    life = case.reads.life_at(case.now)
    ended = f"; the last one {'ended ' + _when(life.ended_at) if life.ended_at else 'was killed'}" if life else ""
    held, control = _held(case, window, window.at)
    as_ = held or "missed, or caught up where the trigger says so"
    if not held and case.held is not None:  # of before it was held: it does not run any more
        as_, control = f"missed, or skipped: {_control_text(case.held)}", case.held
    return _Answer("undecided", [f"no supervisor is up{ended}. The next start decides it: {as_}"], control=control, next=_next(case))


# -- words -----------------------------------------------------------------------------------------


def _control_text(control: Control) -> str:
    until = f" until {_when(control.until)}" if control.until else ""
    reason = f": {control.reason}" if control.reason else ""
    of = f" (set {control.set_id})" if control.set_id else ""
    return f"{control.state} by {control.by or 'somebody'} since {_when(control.at)}{until}{of}{reason}"


def _when(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _when_text(text: str) -> str:
    return _when(parse_stamp(text))
