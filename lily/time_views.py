"""Text for people about time: windows, states, why a job ran or did not, what differs. Strings out; nothing is printed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from lily.render import fields, table, when
from lily.summary import duration
from lily.text import counted

Lines = list[str]
_SHOWN = 20  # of many alike


def control_lines(view: Mapping[str, Any]) -> Lines:
    """What a change of state did to each job, then the set id."""
    lines = [_control_line(job, view) for job in view["jobs"]] or ["no job was changed"]
    return [*lines, f"set {view['set_id']}"] if view["set_id"] else lines


def _control_line(job: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    state = job["state"]
    if not job["changed"]:
        return f"{job['job_id']}: it is {state} already; nothing was changed"
    return f"{job['job_id']}: {state_text(state, view['until'], view['reason'])} (was {job['before']})"


def state_text(state: str, until: str | None, reason: str) -> str:
    """`paused until 2026-05-04 09:00:00Z: the reason`."""
    return state + (f" until {when(until)}" if until else "") + (f": {reason}" if reason else "")


def left_out_text(left_out: Mapping[str, int]) -> str:
    """`left as they are: 2 without a schedule, 1 disabled`; empty when none was."""
    told = ", ".join(f"{count} {why}" for why, count in sorted(left_out.items()))
    return f"left as they are: {told}" if told else ""


def by_hand_line(job_id: str, state: str, until: str | None, reason: str) -> str:
    """That a job runs by hand although its schedule does not run."""
    ends = f" until {when(until)}" if until else ""
    return f"job {job_id} is {state}{ends}" + (f" ({reason})" if reason else "") + ": it runs by hand all the same"


# -- windows ---------------------------------------------------------------------------------------

_WINDOWS = ("LOCAL", "UTC", "NOTE")


def window_cells(window: Mapping[str, Any]) -> list[object]:
    """A window under LOCAL, UTC, NOTE."""
    note = ", ".join(part for part in (window.get("skipped"), window["note"]) if part)
    return [local_text(window["local"]), when(window["utc"]), note]


def local_text(local: str) -> str:
    """A local time with its offset: `2026-05-04 09:00:00 +01:00`."""
    return f"{local[:10]} {local[11:19]} {local[-6:]}"


def next_lines(view: Mapping[str, Any], *, width: int | None = None) -> Lines:
    """The next windows of one job, with what keeps them from running."""
    lines = [f"{view['job_id']}  {view['trigger']}"]
    if view["state"] != "active":
        lines.append(f"it is {state_text(view['state'], view['until'], view['reason'])}")
    if view["trigger"].startswith("condition "):
        lines.append("each of these is a look: the job runs where it finds the condition met")
    if not view["windows"]:
        return [*lines, "no window is to come"]
    return [*lines, "", *_columns(_WINDOWS, [window_cells(window) for window in view["windows"]], width)]


def next_all_lines(views: Sequence[Mapping[str, Any]], *, width: int | None = None) -> Lines:
    """The next windows of several jobs, by job."""
    rows = [[view["job_id"], *window_cells(window)] for view in views for window in view["windows"]]
    return _columns(("JOB", *_WINDOWS), rows, width) if rows else ["no window is to come"]


def _columns(columns: Sequence[str], rows: Sequence[Sequence[object]], width: int | None) -> Lines:
    """A table without its last column when that is empty."""
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return table(columns, rows, width=width)


# -- why -------------------------------------------------------------------------------------------


def why_lines(view: Mapping[str, Any]) -> Lines:
    """First what became of the window, then why, then where that is written."""
    when_ = f" at {local_text(view['local'])} ({when(view['at'])})" if view["at"] else ""
    lines = [f"{view['job_id']}{when_}: {view['outcome'].replace('_', ' ')}", *(f"  {said}" for said in view["because"])]
    pairs: list[tuple[str, object]] = []
    if row := view["row"]:
        more = "".join(f", {name} {row[name]}" for name in ("run_id", "into_at", "code") if row[name])
        pairs.append(("ledger", f"{row['status']}{more}, trigger version {row['version']}, written {when(row['recorded_at'])}"))
    if control := view["control"]:
        told = state_text(control["state"], control["until"], control["reason"])
        pairs.append(("control", f"{told}, since {when(control['at'])} by {control['by']}"))
    pairs += [("run", f"{run['run_id']} {run['status'] or 'pruned'}") for run in view["runs"]]
    if view["next"]:
        jitter = f", with its jitter at {when(view['next_due'])}" if view["next_due"] != view["next"] else ""
        pairs.append(("next", when(view["next"]) + jitter))
    return [*lines, *fields(pairs)]


# -- schedules -------------------------------------------------------------------------------------

_SCHEDULES = ("JOB", "TRIGGER", "STATE", "NEXT FIRE", "LAST FIRE", "STATUS", "LAG", "NOTE")


def schedule_lines(rows: Sequence[Mapping[str, Any]], *, width: int | None = None, paint: Any = None) -> Lines:
    """Scheduled jobs as a table."""
    cells = [
        [
            row["job_id"],
            row["trigger_text"],
            state_text(row["state"], row["until"], row["reason"]),
            when(row["next_fire"]),
            when(row["last_fire"]),
            row["last_outcome"] or "-",
            duration(row["lag_seconds"]),
            row["note"],
        ]
        for row in rows
    ]
    columns: Sequence[str] = _SCHEDULES
    if not any(row[-1] for row in cells):
        columns, cells = columns[:-1], [row[:-1] for row in cells]
    return table(columns, cells, width=width, paint=paint)


def schedule_status_lines(view: Mapping[str, Any]) -> Lines:
    """The scheduler, its job store, and what drifted apart."""
    owner, store = view["owner"], view["job_store"]
    told = f"pid {owner['pid']} (lily {owner['kind']}), since {when(owner['since'])}" if owner else "none; `lily up` starts one"
    grace = view["misfire_grace_seconds"]
    others = f" ({counted(grace['other_jobs'], 'job has', 'jobs have')} another)" if grace["other_jobs"] else ""
    ids = [job["job_id"] for job in view["jobs"]]
    pairs: list[tuple[str, object]] = [
        ("owner", told),
        ("job store", f"{store['path']}: {store['state']}"),
        ("registered", f"{view['registered']}: {_some(ids)}" if ids else view["registered"]),
        ("coalesce", str(view["coalesce"]).lower()),
        ("max instances", view["max_instances"]),
        ("misfire grace", f"{grace['default']:g} s{others}"),
        ("listeners", ", ".join(view["listeners"]) or "none: no scheduler runs"),
        ("last tick", when(view["last_tick"])),
        ("held claims", view["paused_claims"]),
    ]
    drift = {name: jobs for name, jobs in view["drift"].items() if jobs}
    lines = fields([*pairs, ("drift", "none" if not drift else counted(sum(map(len, drift.values())), "job"))])
    for name, jobs in drift.items():
        lines.append(f"  {_DRIFT[name]}: {_some(jobs)}")
    return lines


_DRIFT = {
    "not_registered": "in job files, not in the ledger",
    "edited": "edited, and the ledger has the trigger of before",
    "file_gone": "in the ledger, and the file is gone",
    "file_broken": "in the ledger, and the file is broken: the last good version runs",
    "not_in_job_store": "in the ledger, not in the job store",
    "only_in_job_store": "in the job store, not in the ledger",
    "other_version": "in the job store with another version than in the ledger",
}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def verify_lines(view: Mapping[str, Any]) -> Lines:
    """How much was compared, and each difference."""
    compared = f"{counted(view['windows'], 'window')} of {counted(view['jobs'], 'job')} compared"
    lines = [f"{compared}: {counted(view['count'], 'difference')}"]
    for found in view["differences"]:
        at = f" {when(found['at'])}" if found["at"] else ""
        lines.append(f"{found['job_id']}{at}: {found['kind'].replace('_', ' ')}: {found['message']}")
    left = view["count"] - len(view["differences"])
    return [*lines, f"... and {left} more"] if left else lines


def rebuild_lines(view: Mapping[str, Any]) -> Lines:
    """What became of the job store, and what comes next."""
    count = len(view["will_register"])
    done = f"deleted {view['path']} ({view['was']})" if view["removed"] else f"there is no {view['path']}"
    return [done, f"the next `lily up` writes it from job files and ledger: {counted(count, 'job')}"]


# -- plan ------------------------------------------------------------------------------------------

_CHANGES = {
    "new": "new: it would be registered",
    "removed": "removed: no windows from then on",
    "trigger": "its trigger changes",
    "spec": "its schedule stays; runs from then on pin the new spec",
}


def plan_change_lines(change: Mapping[str, Any]) -> Lines:
    """One job of `lily jobs plan`: what changes, its next fires before and after, what stays."""
    lines = [f"{change['job_id']}: {_CHANGES[change['change']]}"]
    if change["state"] != "active":
        lines.append(f"  it is {state_text(change['state'], change['until'], change['reason'])}")
    sides = [(name, change[name]) for name in ("before", "after") if change[name] is not None]
    for name, side in sides if change["change"] != "spec" else ():
        lines.append(f"  {name:<6}  {side['trigger_text']}")
        lines += [f"          {local_text(fire['local'])}{'  ' + fire['note'] if fire['note'] else ''}" for fire in side["next"]]
    if change["change"] == "trigger":
        first = change["first_difference"]
        lines.append(f"  the first fire that differs: {when(first)}" if first else "  both run at the same times")
    if change["unsettled"]:
        owed = counted(change["unsettled"], "window that fell due has", "windows that fell due have")
        lines.append(f"  {owed} no row yet; {'they do not run' if change['change'] == 'removed' else 'the old trigger decides'}")
    return [*lines, *(f"  {note}" for note in change["notes"])]
