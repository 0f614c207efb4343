"""One command for one bad night: fail all that runs, empty the store. Both know whether somebody owns the workspace."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from lily.clock import stamp
from lily.errors import Code, LilyError
from lily.operations.schedule_state import remove_job_store
from lily.operations.sockets import ring
from lily.storage.audit import Actor
from lily.storage.emergency import Failing
from lily.storage.emergency import fail_running as fail_stored
from lily.storage.emergency import reset as reset_stored
from lily.storage.files import make_folder
from lily.storage.lives import AdvisoryLock
from lily.storage.maintenance import back_up, index_artifacts
from lily.storage.running import running
from lily.storage.store import Store
from lily.workspace import OwnerLock, Workspace, lock_path


@contextmanager
def held(workspace: Workspace, store: Store, at: datetime) -> Iterator[None]:
    """Own the workspace while the block lasts, so that no supervisor starts. Raises `owner_conflict` when somebody else does."""
    lock = OwnerLock(lock_path(workspace))
    lock.acquire(kind="run", since=stamp(at), life=secrets.token_hex(8))
    try:
        advisory = AdvisoryLock(store.engine)
        try:
            if not advisory.acquire():
                raise LilyError(Code.OWNER_CONFLICT, "another process owns this store", where="store.url", hint="stop it first")
            yield
        finally:
            advisory.release()
    finally:
        lock.release()


def fail_running(
    workspace: Workspace, store: Store, actor: Actor, reason: str, at: datetime, *, end_processes: Callable[[Sequence[str]], int]
) -> Failing:
    """Have every running run end as failed: through its owner, or here when it has none. Here its processes are ended first."""
    try:
        with held(workspace, store, at):
            ids = [run.run_id for run in running(store)]
            if ids:
                end_processes(ids)
            return fail_stored(store, actor, reason, at, owned=False)
    except LilyError as error:
        if error.code is not Code.OWNER_CONFLICT:
            raise
    done = fail_stored(store, actor, reason, at, owned=True)
    ring(workspace)
    return done


def reset(workspace: Workspace, store: Store, actor: Actor, reason: str, at: datetime) -> tuple[Path, dict[str, int]]:
    """Empty the store after a backup of it and an index of the artifacts, which stay; gives the backup's folder and the rows that went.

    Raises `owner_conflict` while somebody owns the workspace.
    """
    folder = workspace.database.parent / "backups" / f"{at:%Y%m%dT%H%M%S}.{at.microsecond:06d}Z"

    def backup() -> Path:
        make_folder(folder)
        back_up(store, folder)
        index_artifacts(workspace.runs, folder / "artifacts.jsonl")
        return folder

    with held(workspace, store, at):
        done = reset_stored(store, actor, reason, at, backup)
        remove_job_store(workspace)
    return done
