"""The worker: how it stands, pausing and resuming it, and who may run runs while it is paused."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from lily.clock import parse_stamp
from lily.errors import Code, LilyError
from lily.operations.sockets import ring
from lily.runs import Run, Status
from lily.settings import Settings
from lily.storage.audit import Actor
from lily.storage.health_reads import other_supervisor
from lily.storage.running import running
from lily.storage.store import Store
from lily.storage.worker import Pause, paused
from lily.storage.worker import pause as pause_stored
from lily.storage.worker import resume as resume_stored
from lily.workspace import Workspace, current_owner

_WAITING = (Status.QUEUED, Status.RETRY_SCHEDULED, Status.WAITING_APPROVAL)
_NOTHING = {"processed": 0, "succeeded": 0, "failed": 0, "canceled": 0, "last_activity": None}


def status(
    workspace: Workspace,
    settings: Settings,
    store: Store | None,
    now: datetime,
    said: Mapping[str, Any] | None,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """All that can be known of the worker. What it did is counted from its start; without one that answers, it is nothing.

    `store` is None where nobody ever made one, or it can't be asked; `said` is what `supervisor_status` gave; `counts` are the runs by
    status where somebody has asked for them already.
    """
    owner = current_owner(workspace)
    work = {**_NOTHING, **((said or {}).get("worker") or {})}
    enabled = bool(work.pop("enabled", settings.worker.enabled))
    if counts is None:
        counts = store.counts() if store is not None else {}
    started_at = said["started_at"] if said else None
    return {
        "running": said is not None,
        "enabled": enabled,
        "paused": msgspec.to_builtins(paused(store)) if store is not None else None,
        "owner": None if owner is None else {"kind": owner.kind, "pid": owner.pid, "since": owner.since},
        "draining": bool(said and said["draining"]),
        "started_at": started_at,
        "uptime_seconds": _seconds(started_at, now),
        "concurrency": said["slots"] if said else settings.queue.max_concurrent,
        "active": [_active(store, run, now) for run in running(store)] if store is not None else [],
        **work,
        "waiting": {each.value: counts.get(each.value, 0) for each in _WAITING},
    }


def elsewhere(workspace: Workspace, settings: Settings, store: Store | None) -> str:
    """Whose living supervisor uses the store though no supervisor owns the workspace, in words; empty: none that is known
    here."""
    owner = current_owner(workspace)
    other = other_supervisor(store) if store is not None and (owner is None or owner.kind != "up") else None
    if other is None:
        return ""
    pid, since, machine = other
    if machine:
        return f"pid {pid} on {machine} (lily up, since {since}) is using this store from another machine"
    who = f"pid {pid} (lily up, since {since})"
    if not settings.store.url:
        return f"{who} is using this workspace, and its lock was deleted"
    return f"{who} is using this store: another workspace has the same store.url, or the lock of this one was deleted"


def _active(store: Store, run: Run, now: datetime) -> dict[str, Any]:
    began = run.attempts[-1].started_at if run.attempts else run.started_at
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "attempt": len(run.attempts),
        "started_at": began,
        "elapsed_seconds": _seconds(began, now),
        "timeout_seconds": store.spec(run.spec_hash).runtime.timeout_seconds,
        "cancel_requested": run.cancel is not None,
    }


def _seconds(since: str | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, round((now - parse_stamp(since)).total_seconds(), 3))


def pause(workspace: Workspace, store: Store, actor: Actor, reason: str, now: datetime) -> tuple[Pause | None, Pause]:
    """Have no runs taken, and ring; what runs goes on. Gives the pause before and the one that holds now."""
    done = pause_stored(store, actor, reason, now)
    ring(workspace)
    return done


def resume(workspace: Workspace, store: Store, actor: Actor, reason: str, now: datetime) -> Pause | None:
    """Have runs taken again, and ring; gives the pause that this ends, if there was one."""
    done = resume_stored(store, actor, reason, now)
    ring(workspace)
    return done


def check_taking(workspace: Workspace, settings: Settings, store: Store, *, stored: bool = False) -> None:
    """Raises `worker_paused` when a process of its own could not run anything either: nobody is up, and no runs are taken. `stored` says
    that the run is accepted already."""
    if current_owner(workspace) is not None:
        return
    why = standstill(settings, paused(store))
    if why:
        raise LilyError(
            Code.WORKER_PAUSED,
            f"nothing may run now: {why[0]}",
            where=str(workspace.root),
            hint=f"{why[1]}; {'' if stored else 'with --detach '}the run is stored and waits",
        )


def standstill(settings: Settings, pause: Pause | None) -> tuple[str, str] | None:
    """Why no runs are taken and what ends that; None while they are."""
    if not settings.worker.enabled:
        return f"worker.enabled is false ({settings.origins['worker.enabled']})", "set it to true"
    if pause is not None:
        since = f"{pause.at[:10]} {pause.at[11:19]}Z"
        return f"{pause.by} paused the worker at {since}" + (f": {pause.reason}" if pause.reason else ""), "`lily worker resume` ends that"
    return None
