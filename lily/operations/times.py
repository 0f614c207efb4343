"""The windows to come, and how every schedule stands. Needs job files; the ledger where there is one."""

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from lily.clock import parse_stamp, stamp
from lily.errors import LilyError
from lily.own_jobs import PLACE, is_own
from lily.policies import scheduled
from lily.spec_index import Catalog, SpecEntry
from lily.trigger_forms import trigger_text

if TYPE_CHECKING:
    from lily.storage.store import Store
    from lily.storage.window_reads import WindowRow
    from lily.storage.windows import JobState
    from lily.triggers.schedule import Schedule, Window

_LOOKED_AT = 10_000  # windows in a row that may be excluded before the search for one that runs ends


def window_view(schedule: "Schedule", at: datetime) -> dict[str, Any]:
    """A window in UTC and in its job's zone, with what is special about that day."""
    return {"utc": stamp(at), "local": local_of(schedule, at), "note": schedule.note(at)}


def local_of(schedule: "Schedule", at: datetime) -> str:
    """An instant in the schedule's zone, with its offset."""
    return at.astimezone(schedule.zone).isoformat()


def _coming(schedule: "Schedule", after: datetime, count: int) -> "Iterator[Window]":
    from lily.triggers.zones import LATEST

    return islice(schedule.windows(after, LATEST), count)


def running(schedule: "Schedule", after: datetime, count: int) -> Iterator[datetime]:
    """The next windows after an instant that run: without those that the trigger excludes."""
    return islice((window.at for window in _coming(schedule, after, count + _LOOKED_AT) if not window.excluded), count)


def coming_due(schedule: "Schedule", job_id: str, begin: datetime, after: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Windows after `begin` that run, each with when its jitter lets it, of those that are due only after `after`."""
    for at in running(schedule, begin, _LOOKED_AT):
        due = schedule.fire_at(job_id, at)
        if due > after:
            yield at, due


def jitter_of(trigger: Mapping[str, Any]) -> timedelta:
    """How long after its instant a window may run."""
    return timedelta(seconds=float(trigger.get("jitter_seconds") or 0))


def next_of(entry: SpecEntry, state: "JobState | None", after: datetime | None, count: int, now: datetime) -> list[dict[str, Any]]:
    """The next windows of a job after a time, each with what will keep it from running as things stand.

    Without a time from now on, and from the window on whose jitter is still running. Raises `job_trigger_invalid`.
    """
    schedule, begin = _schedule(entry.trigger, entry.timezone), after or now
    waiting: deque[Window] = deque(maxlen=1)
    if after is None and state is not None:
        held_since = state.version.since if state.version is not None else now
        earliest = max(now - jitter_of(entry.trigger), state.settled, held_since)
        waiting.extend(schedule.windows(earliest, now))  # only the last can be to come
        begin = max(now, state.settled)  # the clock was set back: what has its row does not run again
    found = [each for each in waiting if schedule.fire_at(entry.id, each.at) > now]
    coming = islice(chain(found, _coming(schedule, begin, count)), count)
    dues = [(each, schedule.fire_at(entry.id, each.at)) for each in coming]
    return [{**_fire_view(schedule, each.at, due), "skipped": _skipped(each, due, state, now)} for each, due in dues]


def _fire_view(schedule: "Schedule", at: datetime, due: datetime) -> dict[str, Any]:
    """A window, and where it has a jitter when that lets it run."""
    view = window_view(schedule, at)
    if due != at:
        view["note"] = "; ".join(filter(None, [view["note"], f"with its jitter at {due.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"]))
    return view


def _skipped(window: "Window", due: datetime, state: "JobState | None", now: datetime) -> str | None:
    if window.excluded:
        return "excluded"
    if state is None:
        return None
    if _held_then(state, window.at):
        return state.state.value
    return state.state.value if state.state_at(now) != "active" and (state.until is None or due < state.until) else None


def next_of_all(entries: list[SpecEntry], after: Mapping[str, datetime], count: int) -> list[dict[str, Any]]:
    """The next windows that run, of every job that has a schedule; `after` by the name of the job's zone."""
    made = []
    for entry in entries:
        schedule = _schedule(entry.trigger, entry.timezone)
        coming = running(schedule, after[entry.timezone or "UTC"], count)
        windows = [_fire_view(schedule, at, schedule.fire_at(entry.id, at)) for at in coming]
        made.append({"job_id": entry.id, "timezone": entry.timezone or "UTC", "windows": windows})
    return made


def _schedule(trigger: Mapping[str, Any], timezone: str | None) -> "Schedule":
    from lily.triggers.schedule import schedule_of

    return schedule_of(trigger, timezone)


def state_view(state: "JobState | None", now: datetime) -> dict[str, Any]:
    """How a job's schedule stands now; active when the ledger knows nothing else."""
    if state is None or state.state_at(now) == "active":
        return {"state": "active", "until": None, "reason": ""}
    return {"state": state.state_at(now).value, "until": stamp(state.until) if state.until else None, "reason": state.reason}


def _held_then(state: "JobState | None", at: datetime) -> bool:
    """Whether a state that has an end keeps the window at `at` from running, also where it is due only after that end."""
    if state is None or state.until is None or state.state == "active" or at >= state.until:
        return False
    return state.state == "disabled" or state.changed_at is None or at >= state.changed_at


# -- lily schedule list ----------------------------------------------------------------------------


def schedules(catalog: Catalog, store: "Store | None", now: datetime) -> list[dict[str, Any]]:
    """Every scheduled job: its state, next and last fire, the last outcome and how late it was. A fixed number of statements."""
    states: dict[str, JobState] = {}
    fires: dict[str, WindowRow] = {}
    windows: dict[str, WindowRow] = {}
    if store is not None:
        from lily.storage.window_reads import WindowReads
        from lily.storage.windows import Windows

        reads = WindowReads(store)
        states, fires, windows = Windows(store).states_or_nonsense(), reads.last_fires(), reads.last_windows()
    claimed, unread = set(catalog.claimed.values()), "" if catalog.complete else "the folder of job files can't be read; "
    rows = []
    for job_id in sorted({*(entry.id for entry in catalog.jobs.values() if scheduled(entry.trigger)), *_kept(catalog, states)}):
        entry, state = catalog.jobs.get(job_id), states.get(job_id)
        why = unread or ("the file is broken; " if job_id in claimed else "")
        note = f"{why}its last good version runs" if why else "the file is gone"
        rows.append(_schedule_view(job_id, entry, state, fires.get(job_id), windows.get(job_id), now, note))
    return rows


def _kept(catalog: Catalog, states: "Mapping[str, JobState]") -> Iterator[str]:
    """Jobs whose windows go on although their file can't be read, or is gone and no supervisor has seen that yet."""
    return (job_id for job_id, state in states.items() if (state.version is not None or state.nonsense) and job_id not in catalog.jobs)


def _schedule_view(
    job_id: str,
    entry: SpecEntry | None,
    state: "JobState | None",
    fire: "WindowRow | None",
    last: "WindowRow | None",
    now: datetime,
    without_file: str,
) -> dict[str, Any]:
    version = state.version if state is not None else None
    trigger = entry.trigger if entry is not None else version.trigger if version else {}
    timezone = entry.timezone if entry is not None else version.timezone if version else None
    view = state_view(state, now)
    due, note = _next_fire(job_id, trigger, timezone, state, now)
    unreadable = next((each.nonsense for each in (state, fire, last) if each is not None and each.nonsense), "")
    if unreadable:  # said before all else: nobody fires its windows
        note = f"its ledger says what no ledger can have said: {unreadable}; see `lily schedule verify`"
    fire, last = (each if each is None or not each.nonsense else None for each in (fire, last))
    if is_own(job_id):
        note = note or PLACE
    elif unreadable:
        pass
    elif entry is None:
        note = without_file
    elif state is None or (version is None and view["state"] != "disabled"):
        note = note or "no supervisor has registered it yet"
    if last is not None and last.status == "condition_error":
        note = note or f"its last look came to an error, {last.code}; see `lily jobs why {job_id}`"
    return {
        "job_id": job_id,
        "trigger_text": trigger_text(trigger, timezone),
        "timezone": timezone or "UTC",
        **view,
        "set_id": state.set_id if state is not None and view["state"] != "active" else None,
        "next_fire": stamp(due) if due else None,
        "last_fire": stamp(fire.at) if fire else None,
        "last_run": fire.run_id if fire else None,
        "last_outcome": fire.run_status if fire else None,
        "lag_seconds": max(0.0, round((parse_stamp(fire.recorded_at) - fire.at).total_seconds(), 6)) if fire else None,
        "last_window": stamp(last.at) if last else None,
        "last_window_status": last.status.value if last else None,
        "note": note,
    }


def _next_fire(
    job_id: str, trigger: Mapping[str, Any], timezone: str | None, state: "JobState | None", now: datetime
) -> tuple[datetime | None, str]:
    """When the job runs next by its schedule, jitter included, and why that can't be said."""
    after = now
    if state is not None and state.nonsense:
        return None, ""
    if state is not None and state.state_at(now) != "active":
        if state.until is None:
            return None, ""
        after = state.until - timedelta(microseconds=1)
    try:
        schedule = _schedule(trigger, timezone)
    except LilyError as error:
        return None, error.message
    # With jitter, the last window before may still be to come.
    begin = after - jitter_of(trigger)
    begin = max(begin, state.settled) if state is not None else begin  # later than now where the clock was set back
    for at, due in coming_due(schedule, job_id, begin, after):
        if not _held_then(state, at):
            return due.astimezone(UTC), ""
    return None, "no window is to come"
