"""The scheduler as its files and its supervisor show it: owner, job store, and what drifted apart between specs, ledger and job store."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.ledger import State, misfire_seconds
from lily.operations.client import supervisor_status
from lily.operations.registering import too_late
from lily.own_jobs import is_own
from lily.policies import scheduled
from lily.spec_index import Catalog, SpecEntry
from lily.storage.audit import Actor, Change, record
from lily.storage.database import writing
from lily.storage.store import Store
from lily.storage.windows import JobState, Windows
from lily.text import counted
from lily.trigger_forms import same_trigger
from lily.workspace import Owner, Workspace, current_owner

DEFAULT_GRACE = misfire_seconds({})
_SIDE_FILES = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A row of the job store."""

    next_run_time: str | None
    version: int | None
    misfire_grace_seconds: int | None


@dataclass(frozen=True, slots=True)
class JobStoreFile:
    """What the job store's file holds. `problem` says why it could not be read; it is then as if it were empty."""

    path: Path
    jobs: dict[str, StoredJob] = field(default_factory=dict)
    problem: str = ""

    @property
    def state(self) -> str:
        return self.problem or counted(len(self.jobs), "job")


def read_job_store(path: Path) -> JobStoreFile:
    """The rows of the job store, read only. Never raises: a file that is missing or damaged says so."""
    if not path.exists():
        return JobStoreFile(path, problem="not there; the next start makes it")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            rows = connection.execute("select id, next_run_time, body from job order by id").fetchall()
        return JobStoreFile(path, {str(row[0]): _stored(row[1], row[2]) for row in rows})
    except (sqlite3.Error, ValueError, TypeError) as error:  # a page of zeros reads as rows of nothing
        return JobStoreFile(path, problem=f"can't be read ({error}); it is a cache, and the next start makes it anew")


def _stored(next_run_time: Any, body: Any) -> StoredJob:
    given = json.loads(body)
    if not isinstance(given, dict):
        raise ValueError("a row's body is no object")
    return StoredJob(next_run_time, given.get("version"), given.get("misfire_grace_seconds"))


# -- lily schedule status --------------------------------------------------------------------------


def status(workspace: Workspace, catalog: Catalog, store: Store | None, now: datetime) -> dict[str, Any]:
    """All that can be known of the scheduler: from its supervisor when there is one, else from the files."""
    owner, said = current_owner(workspace), (supervisor_status(workspace) or {}).get("scheduler") or {}
    file = read_job_store(workspace.job_store)
    states = Windows(store).states_or_nonsense() if store is not None else {}
    graces = {job_id: misfire_seconds(state.version.trigger) for job_id, state in states.items() if state.version is not None}
    return {
        "owner": None if owner is None else {"kind": owner.kind, "pid": owner.pid, "since": owner.since},
        "running": bool(said),
        "job_store": {"path": str(said.get("job_store") or file.path), "state": file.state, "ok": not file.problem},
        "registered": said.get("registered", len(file.jobs)),
        "jobs": [
            {
                "job_id": job_id,
                "next_run_time": job.next_run_time,
                "version": job.version,
                "misfire_grace_seconds": job.misfire_grace_seconds,
            }
            for job_id, job in file.jobs.items()
        ],
        "coalesce": said.get("coalesce", True),
        "max_instances": said.get("max_instances", 1),
        "misfire_grace_seconds": {"default": DEFAULT_GRACE, "other_jobs": sum(grace != DEFAULT_GRACE for grace in graces.values())},
        "listeners": list(said.get("listeners", [])),
        "paused_claims": said.get("paused_claims", 0),
        "last_tick": said.get("last_tick"),
        "drift": drift(catalog, states, file, now),
    }


def drift(catalog: Catalog, states: Mapping[str, JobState], file: JobStoreFile, now: datetime) -> dict[str, list[str]]:
    """Job ids by what does not fit between job files, ledger and job store; every list is empty when all three agree. Of a job whose
    ledger can't be read, which is told elsewhere, nobody can say."""
    held = {job_id: state.version for job_id, state in states.items() if state.version is not None}
    specs = {entry.id: entry for entry in catalog.jobs.values() if scheduled(entry.trigger)}
    off = {job_id for job_id, state in states.items() if state.state_at(now) is State.DISABLED}
    gone = {job_id for job_id in held.keys() - specs.keys() if not is_own(job_id)}  # no file holds Lily's own
    broken = set(catalog.claimed.values()) if catalog.complete else gone
    edited = [
        job_id
        for job_id in held.keys() & specs.keys()
        if not same_trigger(held[job_id].trigger, held[job_id].timezone, specs[job_id].trigger, specs[job_id].timezone)
    ]
    found: dict[str, set[str] | list[str]] = {
        "not_registered": specs.keys() - held.keys() - off - _over(specs, states, now),
        "edited": edited,
        "file_gone": gone - broken,
        "file_broken": gone & broken,
        "not_in_job_store": {job_id for job_id in held.keys() - file.jobs.keys() if _has_more(states[job_id])},
        "only_in_job_store": file.jobs.keys() - held.keys(),
        "other_version": [job_id for job_id in held.keys() & file.jobs.keys() if file.jobs[job_id].version != held[job_id].number],
    }
    return {name: sorted(set(jobs) - unreadable(states).keys()) for name, jobs in found.items()}


def unreadable(states: Mapping[str, JobState]) -> dict[str, str]:
    """Why the ledger of a job can't be read, by its id."""
    return {job_id: state.nonsense for job_id, state in states.items() if state.nonsense}


def _over(specs: Mapping[str, SpecEntry], states: Mapping[str, JobState], now: datetime) -> set[str]:
    """Jobs that no supervisor will register: their one time had passed before any saw them."""
    return {job_id for job_id in specs.keys() - states.keys() if too_late(specs[job_id].trigger, specs[job_id].timezone, None, now)}


def _has_more(state: JobState) -> bool:
    """Whether the job has a window to come: the scheduler drops one that has none."""
    from lily.triggers.schedule import schedule_of

    assert state.version is not None
    try:
        after = max(state.settled, state.version.since)
        return schedule_of(state.version.trigger, state.version.timezone).next_after(after) is not None
    except LilyError:
        return False


# -- lily schedule rebuild -------------------------------------------------------------------------


def rebuild(workspace: Workspace, catalog: Catalog, store: Store, now: datetime, by: Actor, reason: str) -> dict[str, Any]:
    """Delete the job store, which the next start writes from specs and ledger; audited.

    Raises `owner_conflict` while somebody owns the workspace.
    """
    owner = current_owner(workspace)
    if owner is not None:
        raise _in_use(workspace, owner)
    states = Windows(store).states_or_nonsense()
    before = read_job_store(workspace.job_store)
    off = {job_id for job_id, state in states.items() if state.state is State.DISABLED and state.until is None}
    claimed = set(catalog.claimed.values()) if catalog.complete else states.keys()
    kept = {job_id for job_id, state in states.items() if state.version is not None and job_id in claimed}
    will = {entry.id for entry in catalog.jobs.values() if scheduled(entry.trigger)} | kept
    will |= {job_id for job_id, state in states.items() if state.version is not None and is_own(job_id)}
    change = Change(action="schedule.rebuild", reason=reason, before={"job_store": before.state}, after={"job_store": None})
    with writing(store.engine) as connection:
        record(connection, by, change, stamp(now))
        removed = remove_job_store(workspace)
    return {"path": str(workspace.job_store), "removed": removed, "was": before.state, "will_register": sorted(will - off)}


def remove_job_store(workspace: Workspace) -> bool:
    """Delete the job store, a cache; whether there was one. Only for who knows that nobody owns the workspace."""
    there = workspace.job_store.exists()
    for side in _SIDE_FILES:
        with suppress(FileNotFoundError):
            workspace.job_store.with_name(workspace.job_store.name + side).unlink()
    return there


def _in_use(workspace: Workspace, owner: Owner) -> LilyError:
    return LilyError(
        Code.OWNER_CONFLICT,
        f"{owner.process} (lily {owner.kind}, since {owner.since}) is using the job store",
        where=str(workspace.job_store),
        hint="`lily down` first; a supervisor that starts makes the job store anew by itself",
        pid=owner.pid,
    )
