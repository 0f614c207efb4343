"""What edited job files would change against what is registered, before it is applied."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, zip_longest
from typing import Any

from lily.approvals.record import pending, unused
from lily.clock import stamp
from lily.errors import LilyError
from lily.operations.times import running, state_view, window_view
from lily.policies import scheduled
from lily.spec_index import SpecEntry
from lily.storage.approvals import with_unused
from lily.storage.store import Store
from lily.storage.window_reads import WindowReads
from lily.storage.windows import JobState, Windows
from lily.text import counted
from lily.trigger_forms import same_trigger, trigger_text
from lily.triggers.schedule import Schedule, schedule_of

FIRES = 5
_LOOKED_AT = 1000  # fires among which the first that differs is looked for
_COUNTED = 100_000  # windows that fell due and have no row: at most so many are counted


@dataclass(frozen=True, slots=True)
class Edit:
    """A job as files would have it. `entry` None: its file is gone."""

    job_id: str
    entry: SpecEntry | None


def plan(edits: Collection[Edit], store: Store | None, now: datetime) -> list[dict[str, Any]]:
    """Each job that would change, by id: what is registered now and what would be."""
    ids = [edit.job_id for edit in edits]
    states: Mapping[str, JobState] = {}
    waiting: Mapping[str, list[str]] = {}
    voided: dict[str, list[dict[str, Any]]] = {}
    if store is not None:
        states, waiting = Windows(store).states(ids), WindowReads(store).waiting_runs(ids)
        voided = _voided(edits, store)
    made = []
    for edit in sorted(edits, key=lambda each: each.job_id):
        state, lost = states.get(edit.job_id), voided.get(edit.job_id, [])
        kind = _kind(edit.entry, state)
        if kind == "none" and lost:  # nothing of its schedule, but what somebody was asked about
            kind = "spec" if edit.entry is not None else "removed"
        if kind != "none":
            made.append(_change(edit, kind, state, waiting.get(edit.job_id, []), lost, now))
    return made


def _voided(edits: Collection[Edit], store: Store) -> dict[str, list[dict[str, Any]]]:
    """Approvals, asked for or given and not used, that are bound to what the job's file said before."""
    digests = {edit.job_id: edit.entry.file_digest if edit.entry is not None else "" for edit in edits}
    found: dict[str, list[dict[str, Any]]] = {}
    for run in with_unused(store, digests):
        asked = [each for each in (pending(run), *unused(run)) if each is not None]
        for approval in asked:
            bound = approval.bound_to.get("job_file")
            if run.started_at is None and bound is not None and bound != digests[run.job_id]:
                row = {"run_id": run.run_id, "number": approval.number, "what": approval.what, "decision": approval.decision}
                found.setdefault(run.job_id, []).append(row)
    return found


def registered(store: Store, now: datetime) -> list[str]:
    """The jobs that have windows to come, as the ledger knows them."""
    return [job_id for job_id, state in Windows(store).states_or_nonsense().items() if state.version is not None]


def _change(
    edit: Edit, kind: str, state: JobState | None, waiting: list[str], voided: list[dict[str, Any]], now: datetime
) -> dict[str, Any]:
    entry, version = edit.entry, state.version if state is not None else None
    before = _side(version.trigger, version.timezone, now) if version is not None else None
    after = _side(entry.trigger, entry.timezone, now) if entry is not None and scheduled(entry.trigger) else None
    return {
        "job_id": edit.job_id,
        "path": entry.path if entry is not None else None,
        "change": kind,
        "before": before,
        "after": after,
        "first_difference": _first_difference(edit, state, now) if kind in ("trigger", "removed", "new") else None,
        **state_view(state, now),
        "unsettled": _unsettled(state, now),
        "waiting_runs": waiting if kind != "new" else [],
        "approvals": voided,
        "notes": [*_notes(kind, state, waiting, after, now), *_lost(voided)],
    }


def _kind(entry: SpecEntry | None, state: JobState | None) -> str:
    """`new`, `removed`, `trigger` (and maybe more of the spec), `spec` (the trigger stays), `none`."""
    version = state.version if state is not None else None
    if entry is None or not scheduled(entry.trigger):
        return "removed" if version is not None else "none"
    if state is None or state.spec_hash is None:
        return "new"
    if version is None:  # disabled, or taken away before
        if state.state != "disabled" or state.until is not None:
            return "new"
        return "none" if state.spec_hash == entry.digest else "spec"
    if not same_trigger(version.trigger, version.timezone, entry.trigger, entry.timezone):
        return "trigger"
    return "none" if state.spec_hash == entry.digest else "spec"


def _side(trigger: Mapping[str, Any], timezone: str | None, now: datetime) -> dict[str, Any]:
    schedule = _schedule(trigger, timezone)
    fires = [window_view(schedule, at) for at in running(schedule, now, FIRES)] if schedule else []
    return {"trigger_text": trigger_text(trigger, timezone), "timezone": timezone or "UTC", "next": fires}


def _schedule(trigger: Mapping[str, Any], timezone: str | None) -> Schedule | None:
    try:
        return schedule_of(trigger, timezone)
    except LilyError:
        return None


def _first_difference(edit: Edit, state: JobState | None, now: datetime) -> str | None:
    """The first time at which only one of the two would run."""
    version = state.version if state is not None else None
    old = _schedule(version.trigger, version.timezone) if version is not None else None
    new = _schedule(edit.entry.trigger, edit.entry.timezone) if edit.entry is not None and scheduled(edit.entry.trigger) else None
    sides = [running(schedule, now, _LOOKED_AT) if schedule else iter(()) for schedule in (old, new)]
    for a, b in zip_longest(*sides):
        if a != b:
            return stamp(min(at for at in (a, b) if at is not None))
    return None


def _unsettled(state: JobState | None, now: datetime) -> int:
    """Windows of the old trigger that fell due and have no row: what becomes of them is decided by the old trigger."""
    if state is None or state.version is None:
        return 0
    schedule = _schedule(state.version.trigger, state.version.timezone)
    after = max(state.settled, state.version.since)
    return sum(1 for _ in islice(schedule.windows(after, now), _COUNTED)) if schedule else 0


def _lost(voided: list[dict[str, Any]]) -> list[str]:
    return [
        f"the approval of {each['what']} for run {each['run_id']} would be void: it is asked about what the file said" for each in voided
    ]


def _notes(kind: str, state: JobState | None, waiting: list[str], after: dict[str, Any] | None, now: datetime) -> list[str]:
    notes = []
    held = state.state_at(now) if state is not None else "active"
    end = stamp(state.until) if state is not None and state.until is not None else ""
    if held == "disabled":
        notes.append(
            f"it stays disabled until {end}: no windows before" if end else "it stays disabled: no windows until `lily jobs enable`"
        )
    elif held == "paused":
        notes.append("its state is kept: a paused job stays paused" + (f" until {end}" if end else ""))
    if waiting and kind != "new":
        kept = counted(len(waiting), "run that has not ended keeps the spec it was", "runs that have not ended keep the specs they were")
        notes.append(f"{kept} accepted with")
    if kind == "trigger":
        notes.append("windows up to the moment of the change follow the old trigger")
    if after is not None and not after["next"]:
        notes.append("the new trigger has no window to come")
    return notes
