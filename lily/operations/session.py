"""Opening what an operation works on."""

import os
import random

from lily.clock import Clock, SystemClock
from lily.errors import Code, LilyError
from lily.settings import Settings
from lily.storage.store import Store
from lily.text import counted
from lily.workspace import Workspace, current_owner


def open_store(workspace: Workspace, settings: Settings, *, clock: Clock | None = None, dice: random.Random | None = None) -> Store:
    """The workspace's store, its schema up to date. Raises `store_unavailable`, `disk_full`, `store_schema_newer`.

    An older schema is brought up to date, unless another process owns the workspace: then `owner_conflict`.
    """
    return Store(
        settings.store.url,
        database_file=workspace.database,
        clock=clock or SystemClock(),
        dice=dice,
        limits=settings.queue,
        max_dead_letters=settings.dlq.max_entries,
        may_upgrade=lambda found: _refuse_beside_owner(workspace, found),
    )


def lacking(workspace: Workspace, store: Store) -> str:
    """What to say of a store that opening it has made, as where its file was deleted, while runs have folders; empty otherwise."""
    if not store.made:
        return ""
    from lily.storage.doctor_reads import runs_on_disk  # once in the life of a store

    lost = sum(1 for _ in runs_on_disk(workspace))
    if not lost:
        return ""
    folder = workspace.runs.relative_to(workspace.root)
    return (
        f"the store is new and knows nothing of {counted(lost, 'run')} in {folder}:"
        " put back the one that was there, or `lily db rebuild --from receipts`"
    )


def _refuse_beside_owner(workspace: Workspace, found: str) -> None:
    """An owner that lives is of the Lily that knows the schema as it is; it would fail with another one."""
    owner = current_owner(workspace)
    if owner is not None and not (owner.near and owner.pid == os.getpid()):
        raise LilyError(
            Code.OWNER_CONFLICT,
            f"the store's schema is {found}, and {owner.process} (lily {owner.kind}), of an older Lily, is using it",
            where=str(workspace.root),
            hint="`lily down` first; the next command then brings the store up to date",
            pid=owner.pid,
        )
