"""Accepting runs: what may not run in this version is refused before anything of it is stored."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from lily.clock import Clock, SystemClock, stamp
from lily.errors import Code, LilyError
from lily.identity import Actor
from lily.operations.sockets import ring
from lily.runs import Event, Run, decode_spec
from lily.specs import spec_hash
from lily.storage.new_runs import NewRun
from lily.storage.state_audit import Submission
from lily.storage.store import Store, Then
from lily.workspace import Workspace

ROOM_BYTES = 1 << 20  # what must be free on the disk where a run is to leave its artifacts


class Spec(Protocol):
    """A checked job spec; `specs.JobSpec` is one."""

    @property
    def id(self) -> str: ...

    def canonical(self) -> bytes: ...


def new_run(
    canonical: bytes,
    *,
    by: str,
    trigger_type: str = "manual",
    clock: Clock | None = None,
    key: str | None = None,
    lineage: Mapping[str, Any] | None = None,
    approvals: Sequence[Mapping[str, Any]] = (),
    events: Sequence[Event] = (),
) -> NewRun:
    """A run of the spec with this canonical JSON."""
    spec = decode_spec(canonical)
    fired_at = stamp((clock or SystemClock()).now())
    repeats = {name: value for name, value in (lineage or {}).items() if name in ("replayed_from", "retried_from")}
    return NewRun(
        job_id=spec.id,
        spec=canonical,
        spec_hash=spec_hash(canonical),
        trigger={"type": trigger_type, "scheduled_for": None, "fired_at": fired_at, "by": by, **repeats},
        priority=spec.runtime.priority,
        key=key,
        lineage=dict(lineage or {}),
        approvals=[dict(approval) for approval in approvals],
        events=list(events),
    )


def check_place(workspace: Workspace, job_ids: Iterable[str]) -> None:
    """A run that could not leave its artifacts is not accepted: `job_ids` are the jobs whose runs are to come."""
    runs, lily = _folders(workspace)
    folder = runs if os.path.isdir(runs) else lily
    # A job's own folder is another user's where that user was the first to run the job, root by a slip say.
    own = {path: {"job_id": job_id} for job_id in job_ids if os.path.isdir(path := f"{runs}/{job_id}")}
    for each in (folder, *own):
        if not os.access(each, os.W_OK | os.X_OK):
            hint = "check owner and permissions"
            raise LilyError(Code.WORKSPACE_INVALID, "runs can't be written here", where=each, hint=hint, **own.get(each, {}))
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
        said = f"less than {ROOM_BYTES >> 20} MiB is free where runs are written"
        raise LilyError(Code.DISK_FULL, said, where=folder, hint="make room, then do it again; nothing was stored")


@lru_cache(maxsize=64)  # every submission asks
def _folders(workspace: Workspace) -> tuple[str, str]:
    return str(workspace.runs), str(workspace.lily)


def caused_by(actor: Actor) -> dict[str, Any]:
    """The lineage of a run that `actor` has accepted: names the run that it came from, if a run acts."""
    return {"triggered_by_run": actor.run_id} if actor.run_id else {}


def accept_all(
    workspace: Workspace, store: Store, new: Sequence[NewRun], then: Then | None = None, by: Submission | None = None
) -> list[Run]:
    """Store runs in one transaction, with what `then` does in it and with `by` in the audit, and ring. They are owed from then on.

    Raises `disk_full` or `workspace_invalid` where their artifacts could not be written.
    """
    check_place(workspace, {each.job_id for each in new})
    runs = store.submit(new, then, by)
    ring(workspace)
    return runs


def accept(workspace: Workspace, store: Store, spec: Spec, *, by: Submission, key: str | None = None) -> Run:
    """Store one run of `spec`, audited, and ring."""
    new = new_run(spec.canonical(), by=by.actor.name, key=key, lineage=caused_by(by.actor))
    return accept_all(workspace, store, [new], by=by)[0]
