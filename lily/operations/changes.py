"""Changing what is there: cancel, retry at once, replay, prune, and comparing two runs."""

import errno
import os
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from lily.batched import batched
from lily.clock import Clock, SystemClock, stamp
from lily.errors import Code, LilyError
from lily.identity import Actor, as_actor
from lily.operations.accept import accept_all, caused_by, new_run
from lily.operations.sockets import ring
from lily.runs import TERMINAL, Run
from lily.spec_index import SpecIndex
from lily.storage.artifacts import read_receipt
from lily.storage.cancels import Done, cancel_runs
from lily.storage.files import need_way, remove_folder
from lily.storage.hurries import AT_ONCE, hurry_runs
from lily.storage.state_audit import Submission
from lily.storage.store import Store
from lily.workspace import Workspace

_AT_ONCE = 200  # runs that one transaction deletes: others wait for it


def cancel(
    workspace: Workspace, store: Store, run_id: str, *, by: str | Actor, reason: str, clock: Clock | None = None, said_by: str = ""
) -> Run:
    """Cancel a run: at once when it waits, through its owner when it runs; audited. The receipt names `said_by`, or the actor.

    Raises `run_state_invalid` for an ended one."""
    found = store.find(run_id)
    actor, now = as_actor(by), (clock or SystemClock()).now()
    (told,) = cancel_runs(store, [found.run_id], actor=actor, reason=reason, at=now, said_by=said_by)
    if told.done is Done.ENDED:
        raise ended(told.run)
    ring(workspace)
    return store.run(found.run_id)


def retry_now(
    workspace: Workspace, store: Store, run_ids: Sequence[str], *, by: Actor, reason: str, clock: Clock | None = None
) -> list[Run]:
    """Queue runs whose next attempt is not due yet, all or none; audited. Gives them in the order in which they were named.

    Raises `run_state_invalid` for one that waits for none, `usage` for too many.
    """
    ids = list(dict.fromkeys(store.find(run_id).run_id for run_id in run_ids))
    if len(ids) > AT_ONCE:
        raise LilyError(Code.USAGE, f"at most {AT_ONCE} runs at once", hint="name the others in a second command")
    others = hurry_runs(store, ids, actor=by, reason=reason, at=(clock or SystemClock()).now())
    if others:
        raise _not_retrying(others[0])
    ring(workspace)
    return [store.run(run_id) for run_id in ids]


def _not_retrying(run: Run) -> LilyError:
    if run.status in TERMINAL:
        return ended(run)
    said = f"the run does not wait for its next attempt: it is {run.status}"
    return LilyError(
        Code.RUN_STATE_INVALID, said, where=f"run {run.run_id}", hint="`lily runs list --status retry_scheduled` has those that do"
    )


def ended(run: Run) -> LilyError:
    """Why nothing can be done to it."""
    return LilyError(
        Code.RUN_STATE_INVALID, f"the run has ended: {run.status}", where=f"run {run.run_id}", hint="an ended run never changes"
    )


def replay(
    workspace: Workspace, store: Store, run: Run, *, which: str, approve: bool, reason: str, by: str | Actor, clock: Clock | None = None
) -> Run:
    """A new run like `run`, with its pinned spec or the job's current one. It waits for an approval; `approve` gives it at once.

    Raises `approval_forbidden` when `by` may not approve it.
    """
    body, actor = replay_spec(workspace, store, run, which), as_actor(by)
    lineage = {"replayed_from": run.run_id, "spec": which, **caused_by(actor)}
    new = new_run(body, by=actor.name, trigger_type="replay", clock=clock, lineage=lineage)
    if not approve:
        return accept_all(workspace, store, [new], by=Submission(actor=actor, action="run.replay", reason=reason))[0]
    if not reason.strip():
        raise LilyError(Code.USAGE, "an approval needs a reason", hint="--reason R")
    from lily.operations.replays import accept_approved

    return accept_approved(workspace, store, new, actor=actor, reason=reason, clock=clock or SystemClock())


def replay_spec(workspace: Workspace, store: Store, run: Run, which: str) -> bytes:
    """The canonical spec that a replay of `run` would have: `pinned` or `current`."""
    if which == "pinned":
        return store.spec_body(run.spec_hash).encode()
    return SpecIndex(workspace).load(run.job_id).canonical()


def prune(
    workspace: Workspace,
    store: Store,
    *,
    by: Actor,
    reason: str = "",
    keep: int | None = None,
    older_than: timedelta | None = None,
    dry_run: bool = False,
    job_id: str | None = None,
    clock: Clock | None = None,
    stays: Callable[[Run, OSError], None] = lambda run, why: None,
) -> list[Run]:
    """Delete ended runs with their artifacts: all but the newest `keep` of each job, or those that ended before `older_than`. Audited.

    A run that has not ended, or whose artifacts are still owed, is never touched. Gives the runs that went (or would go); one
    whose folder can't be removed, because somebody else left one in it, stays with its row, and `stays` is told. Raises
    `workspace_invalid` where the folder of runs leads nowhere: what is there would be left for good.
    """
    need_way(workspace.runs)
    before = stamp((clock or SystemClock()).now() - older_than) if older_than is not None else None
    gone: list[Run] = []
    kept: dict[str, OSError] = {}
    for job in [job_id] if job_id is not None else store.job_ids():
        gone += [run for run in _prunable(store, job, keep) if before is None or (run.ended_at or "") < before]
    if not dry_run:
        for some in batched(gone, _AT_ONCE):
            # The files before it holds: whoever is killed here finds the runs again and goes on.
            store.forget([run.run_id for run in some], by, reason, partial(_remove_folders, workspace, some, kept))
        if gone:
            store.forget_unnamed()
    for run in gone:
        if run.run_id in kept:
            stays(run, kept[run.run_id])
    return [run for run in gone if run.run_id not in kept]


def _prunable(store: Store, job_id: str, keep: int | None) -> list[Run]:
    # Of one whose row can't be read nobody knows how old it is.
    ended = [run for run in store.every_run(job_id) if run.status in TERMINAL and run.events]
    return [run for run in ended[keep or 0 :] if run.written]


def _remove_folders(workspace: Workspace, runs: Sequence[Run], kept: dict[str, OSError], ids: Collection[str]) -> Collection[str]:
    """Gives those that stay; why goes into `kept`. Raises `workspace_invalid` where none can be reached."""
    for run in runs:
        if run.run_id in ids:
            try:
                _remove_folder(workspace, run)
            except OSError as exc:
                need_way(workspace.runs)
                kept[run.run_id] = exc
            except RecursionError:
                kept[run.run_id] = OSError(errno.ENAMETOOLONG, "folders in it stand too deep in one another")
    return kept.keys() & set(ids)


def _remove_folder(workspace: Workspace, run: Run) -> None:
    """Never through a link: of one in place of a run's folder the link goes, and behind one in place of a job's folder nothing."""
    folder = workspace.run_dir(run.job_id, run.run_id)
    try:
        remove_folder(folder)
    except (NotADirectoryError, FileNotFoundError):
        need_way(workspace.runs)
        if folder.parent.is_dir() and not folder.parent.is_symlink() and os.path.lexists(folder):
            raise


def diff(workspace: Workspace, store: Store, a: str, b: str) -> dict[str, Any]:
    """What differs between two runs: {field: {"a": ..., "b": ...}} over spec, version, outcome, attempts, durations, payload."""
    one, two = (_told(workspace, store, store.find(run_id)) for run_id in (a, b))
    left, right = _flat(one), _flat(two)
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    return {
        "a": one["run_id"],
        "b": two["run_id"],
        "differences": {key: {"a": left.get(key), "b": right.get(key)} for key in sorted(keys) if key != "run_id"},
    }


_COMPARED = (
    "run_id",
    "job_id",
    "status",
    "error",
    "target",
    "spec",
    "attempts",
    "durations",
    "payload",
    "trigger",
    "limits",
    "lily_version",
)


def _told(workspace: Workspace, store: Store, run: Run) -> dict[str, Any]:
    receipt = read_receipt(workspace, run.job_id, run.run_id)
    if receipt is None:
        raise LilyError(Code.RUN_STATE_INVALID, f"the run has no receipt yet: {run.status}", where=f"run {run.run_id}")
    given = msgspec.to_builtins(receipt)
    return {key: given[key] for key in _COMPARED}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else str(key)).items()}
    if isinstance(value, list) and value and not all(isinstance(item, (str, int, float, bool)) for item in value):
        return {k: v for i, inner in enumerate(value) for k, v in _flat(inner, f"{path}[{i}]").items()}
    return {path: value}
